"""Digests of files as they were when they were last read: a tree that nobody touched is not read again.

One JSON file per tree under ``cache/files/`` of the state folder. A file is what it was when size, inode, modification
and change time are. One that was changed within `SETTLED_S` before it was read is not remembered: a second change in
the same tick of the file system's clock would not show.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path

from skyinfra.model.home import Home

__all__ = ["StatCache"]

SETTLED_S = 2.0
KEPT = 32
"""Trees, the latest used ones."""


class StatCache:
    def __init__(self, root: str, trusted: bool = True) -> None:
        """Not `trusted`: nothing is known, and what is read now is remembered."""
        name = hashlib.sha256(os.fsencode(root)).hexdigest()[:32]
        self._path = Home.from_env().root / "cache" / "files" / f"{name}.json"
        self._before = _load(self._path) if trusted else {}
        self._now: dict[str, list[object]] = {}

    def get(self, name: str, seen: os.stat_result) -> bytes | None:
        """The chunks of the file `name` of the tree; None when it must be read."""
        known = self._before.get(name)
        if known is None or known[:4] != _key(seen):
            return None
        self._now[name] = known
        return bytes.fromhex(str(known[4]))

    def put(self, name: str, seen: os.stat_result, read_at: float, chunks: bytes) -> None:
        """`read_at`: when it was begun to be read, in seconds since the epoch."""
        if max(seen.st_ctime, seen.st_mtime) < read_at - SETTLED_S:
            self._now[name] = [*_key(seen), chunks.hex()]

    def save(self) -> None:
        """A cache that cannot be written is none: files are read again."""
        if self._now == self._before:
            return
        temporary = self._path.with_suffix(f".{os.getpid()}.tmp")
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            temporary.write_text(json.dumps(self._now, separators=(",", ":")))
            os.replace(temporary, self._path)
            _tidy(self._path.parent)
        except OSError:
            pass


def _key(seen: os.stat_result) -> list[object]:
    return [seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_ino]


def _load(path: Path) -> dict[str, list[object]]:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    good = isinstance(value, dict) and all(isinstance(v, list) and len(v) == 5 for v in value.values())
    return value if good else {}


def _tidy(folder: Path) -> None:
    """Forget the trees that were not sent for longest, and what a killed client left."""
    files = sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
    now = time.time()
    for place, path in enumerate(files):
        if place >= KEPT or (path.suffix == ".tmp" and path.stat().st_mtime < now - 3600):
            path.unlink(missing_ok=True)
