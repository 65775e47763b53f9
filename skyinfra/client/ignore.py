"""What of a folder stays at home: `.skyignore` at its root, else what git would ignore.

With a `.skyignore` (gitignore syntax) only that file counts. Otherwise git itself is asked, for the tree's repository
and for each one inside it: every `.gitignore`, `.git/info/exclude` and the user's own excludes count, and what git
tracks travels although a rule matches it. Without git, or where it declines (another user's repository) or there is no
repository, the `.gitignore` files themselves are read. Nothing else is left out, `.git` included, because that is what
SkyPilot's users rely on.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable
from typing import Any

from skyinfra.runtime.tree import ARRIVING

__all__ = ["Ignore"]

SKYIGNORE = ".skyignore"
GITIGNORE = ".gitignore"
GIT_S = 60.0


class Ignore:
    """The rules for one tree; `enter` each folder top-down, then ask which of the paths in it are `skipped`."""

    def __init__(self, root: str) -> None:
        self._root = root.rstrip("/")
        self._own = _read(root, SKYIGNORE)
        self._nearest: dict[str, _Rules] = {}
        """Folder: the rules for what is in it."""

    def enter(self, folder: str) -> None:
        """Take up the rules of the root, or of a folder inside it whose parent was entered."""
        if folder.rstrip("/") == self._root:
            self._nearest[folder] = _Patterns([(folder, self._own)]) if self._own is not None else _of_root(folder)
            return
        rules = self._nearest[os.path.dirname(folder)]
        if self._own is None:
            rules = _Nothing() if os.path.basename(folder) == ".git" else rules.inside(folder)
        self._nearest[folder] = rules

    def skipped(self, found: Iterable[tuple[str, bool]]) -> set[str]:
        """Of these (path, is a folder) those that stay at home."""
        asked: dict[_Rules, list[tuple[str, bool]]] = {}
        skipped: set[str] = set()
        for path, is_folder in found:
            name = os.path.basename(path)
            if name == ARRIVING:  # of a transfer that was killed on the node, and fetched from there
                skipped.add(path)
            elif name != ".git" or self._own is not None:
                asked.setdefault(self._nearest[os.path.dirname(path)], []).append((path, is_folder))
        return skipped.union(*(rules.skipped(paths) for rules, paths in asked.items()))


class _Rules:
    def skipped(self, paths: list[tuple[str, bool]]) -> set[str]:
        raise NotImplementedError

    def inside(self, folder: str) -> _Rules:
        """The rules for a folder below."""
        raise NotImplementedError


class _Nothing(_Rules):
    def skipped(self, paths: list[tuple[str, bool]]) -> set[str]:
        return set()

    def inside(self, folder: str) -> _Rules:
        return self


class _Patterns(_Rules):
    """Files of patterns, outermost first; a deeper one wins."""

    def __init__(self, files: list[tuple[str, Any]]) -> None:
        self._files = [(base.rstrip("/") + "/", spec) for base, spec in files]

    def skipped(self, paths: list[tuple[str, bool]]) -> set[str]:
        return {path for path, is_folder in paths if self._skips(path, is_folder)}

    def _skips(self, path: str, is_folder: bool) -> bool:
        verdict = False
        for base, spec in self._files:
            if path.startswith(base):
                found = spec.check_file(path[len(base) :] + ("/" if is_folder else "")).include
                verdict = verdict if found is None else found
        return verdict

    def inside(self, folder: str) -> _Rules:
        if os.path.lexists(os.path.join(folder, ".git")):
            return _of_repository(folder, folder)
        own = _read(folder, GITIGNORE)
        return _Patterns([*self._files, (folder, own)]) if own is not None else self


class _Git(_Rules):
    """One repository, by git's own answer."""

    def __init__(self, top: str, tracked: frozenset[str]) -> None:
        self._top = top
        self._tracked = tracked

    def skipped(self, paths: list[tuple[str, bool]]) -> set[str]:
        asked = b"".join(os.fsencode(path) + b"\0" for path, _ in paths)
        done = _git(self._top, "check-ignore", "--stdin", "-z", input=asked)
        if done is None or done.returncode not in (0, 1):
            return _patterns_from(self._top, self._top).skipped(paths)
        ignored = {os.fsdecode(path) for path in done.stdout.split(b"\0") if path}
        return {path for path in ignored if not any(t.startswith(path + "/") for t in self._tracked)}

    def inside(self, folder: str) -> _Rules:
        return _of_repository(folder, folder) if os.path.lexists(os.path.join(folder, ".git")) else self


def _of_root(root: str) -> _Rules:
    top = root
    while not os.path.lexists(os.path.join(top, ".git")):
        parent = os.path.dirname(top)
        if parent == top:  # in no repository: only the rules of the tree itself
            return _patterns_from(root, root)
        top = parent
    return _of_repository(top, root)


def _of_repository(top: str, folder: str) -> _Rules:
    """The rules in `folder` of the repository at `top`."""
    listed = _git(top, "ls-files", "--cached", "--ignored", "--exclude-standard", "-z")
    if listed is None or listed.returncode != 0:
        return _patterns_from(top, folder)
    tracked = (os.path.join(top, os.fsdecode(name)) for name in listed.stdout.split(b"\0") if name)
    return _Git(top, frozenset(tracked))


def _patterns_from(top: str, folder: str) -> _Patterns:
    """What `.git/info/exclude` and every `.gitignore` from `top` down to `folder` say."""
    files = [(top, _read(top, ".git/info/exclude"))]
    names = [] if folder == top else os.path.relpath(folder, top).split("/")
    for depth in range(len(names) + 1):
        here = os.path.join(top, *names[:depth])
        files.append((here, _read(here, GITIGNORE)))
    return _Patterns([(base, spec) for base, spec in files if spec is not None])


def _git(folder: str, *argv: str, input: bytes | None = None) -> subprocess.CompletedProcess[bytes] | None:
    """None without git. (A file system monitor would be a program of the repository's choice.)"""
    command = ["git", "-c", "core.fsmonitor=false", *argv]
    try:
        return subprocess.run(command, cwd=folder, input=input, capture_output=True, timeout=GIT_S, check=False)
    except (OSError, subprocess.SubprocessError):
        return None


def _read(folder: str, name: str) -> Any | None:
    """A file of patterns; None without one."""
    try:
        with open(os.path.join(folder, name), encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read().splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return None
    import pathspec

    return pathspec.GitIgnoreSpec.from_lines(lines)
