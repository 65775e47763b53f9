"""Which commit this server was built from: recorded by the build, or the checkout's own."""

from __future__ import annotations

import functools
import subprocess
from pathlib import Path

__all__ = ["commit"]

PACKAGE = Path(__file__).resolve().parent.parent
GIT_S = 5.0


@functools.cache
def commit(package: Path = PACKAGE) -> str:
    """40 hex digits, with ``-dirty`` in a checkout that has changes in it; empty when nobody knows. Blocks a little."""
    try:
        return (package / "COMMIT").read_text().strip()
    except OSError:
        pass  # no build recorded one: is it a checkout?
    if not (package.parent / ".git").exists():
        return ""  # a repository further up would not be ours
    head = _git(package, "rev-parse", "HEAD")
    return head + "-dirty" if head and _git(package, "status", "--porcelain", "--untracked-files=no", ".") else head


def _git(package: Path, *words: str) -> str:
    argv = ["git", "--no-optional-locks", *words]
    try:
        done = subprocess.run(argv, cwd=package, capture_output=True, text=True, timeout=GIT_S)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
