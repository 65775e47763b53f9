"""What of a folder stays at home: `.skyignore` at its root, else what git would ignore.

With a `.skyignore` (gitignore syntax) only that file counts. Otherwise every `.gitignore`, from the repository's root
down, and `.git/info/exclude` do, the deepest match deciding; files that git tracks travel although a rule matches them.
Nothing else is left out, `.git` included, because that is what SkyPilot's users rely on.
"""

from __future__ import annotations

import os
import subprocess
from typing import Any

__all__ = ["Ignore"]

SKYIGNORE = ".skyignore"
GITIGNORE = ".gitignore"


class Ignore:
    """The rules for one tree; `enter` each folder top-down, then ask `skips`."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._rules: list[tuple[str, Any]] = []
        """(folder the rules are relative to, with a trailing slash; the rules), outermost first."""
        self._tracked: frozenset[str] = frozenset()
        self._git = not self._add(root, SKYIGNORE)
        if self._git:
            self._add_repository()

    def enter(self, folder: str) -> None:
        """Take up the rules of a folder inside the root; deeper ones come later in the list and so win."""
        if self._git and os.path.realpath(folder) != os.path.realpath(self._root):
            self._add(folder, GITIGNORE)

    def skips(self, path: str, is_folder: bool) -> bool:
        verdict = False
        for base, rules in self._rules:
            if path.startswith(base):
                found = rules.check_file(path[len(base) :] + ("/" if is_folder else "")).include
                verdict = verdict if found is None else found
        return verdict and not self._holds_tracked(path, is_folder)

    def _holds_tracked(self, path: str, is_folder: bool) -> bool:
        if not self._tracked:
            return False
        return path in self._tracked or (is_folder and any(t.startswith(path + "/") for t in self._tracked))

    def _add(self, folder: str, name: str) -> bool:
        try:
            with open(os.path.join(folder, name), encoding="utf-8", errors="surrogateescape") as file:
                lines = file.read().splitlines()
        except (FileNotFoundError, NotADirectoryError):
            return False
        import pathspec

        self._rules.append((folder.rstrip("/") + "/", pathspec.GitIgnoreSpec.from_lines(lines)))
        return True

    def _add_repository(self) -> None:
        """The rules of the repository that the root lies in, and which files it tracks against them."""
        above = [self._root]
        while not os.path.exists(os.path.join(above[-1], ".git")):
            parent = os.path.dirname(above[-1])
            if parent == above[-1]:  # in no repository: only the rules of the tree itself
                self._add(self._root, GITIGNORE)
                return
            above.append(parent)
        self._add(above[-1], ".git/info/exclude")
        for folder in reversed(above):
            self._add(folder, GITIGNORE)
        self._tracked = self._tracked_but_ignored()

    def _tracked_but_ignored(self) -> frozenset[str]:
        """Git's own answer; without git, or where it declines (another user's repository), none."""
        argv = ["git", "-c", "core.fsmonitor=false", "ls-files", "--cached", "--ignored", "--exclude-standard", "-z"]
        try:
            done = subprocess.run(argv, cwd=self._root, capture_output=True, timeout=30, check=True)
        except (OSError, subprocess.SubprocessError):
            return frozenset()
        return frozenset(os.path.join(self._root, os.fsdecode(name)) for name in done.stdout.split(b"\0") if name)
