"""What stands at a destination, as it was left there: so that what nobody touched since is neither sent nor written.

A file is what it was when inode, size, modification *and change* time are: the last one cannot be set by anybody. The
record (SQLite) is a help, not a truth: without it everything is sent again.
"""

import os
import sqlite3
from typing import Dict, Iterable, List, NamedTuple, Optional, Tuple

from skyinfra.runtime import disk
from skyinfra.runtime.tree import Entry

_SCHEMA = """
CREATE TABLE IF NOT EXISTS placed (dest TEXT, name TEXT, inode INTEGER, size INTEGER, modified INTEGER, changed INTEGER,
                                   mode INTEGER, chunks BLOB, PRIMARY KEY (dest, name)) WITHOUT ROWID;
"""


class Placed(NamedTuple):
    inode: int
    size: int
    modified: int
    changed: int
    mode: int
    chunks: bytes


class Register:
    """Opened for one apply; used by one thread."""

    def __init__(self, path: str) -> None:
        try:
            self._db = _opened(path)
        except sqlite3.DatabaseError:  # damaged
            for suffix in ("", "-wal", "-shm"):
                disk.remove_file(path + suffix)
            self._db = _opened(path)

    def close(self) -> None:
        self._db.commit()
        self._db.close()

    def untouched(self, dest: str, entries: Iterable[Entry]) -> Dict[str, Placed]:
        """Of these files those that stand below `dest` just as we left them, by name."""
        names = [stored(entry.name) for entry in entries]
        marks = ",".join("?" * len(names))
        columns = "name, inode, size, modified, changed, mode, chunks"
        asked = "SELECT {} FROM placed WHERE dest = ? AND name IN ({})".format(columns, marks)
        rows = self._db.execute(asked, [stored(dest), *names]).fetchall()
        found = {}
        for raw, *row in rows:
            name, placed = os.fsdecode(raw), Placed(*row)
            if _stands(path_of(dest, name), placed):
                found[name] = placed
        return found

    def record(self, dest: str, files: "List[Tuple[str, bytes]]") -> None:
        """These (name, chunks) have just been put below `dest`."""
        rows = []
        for name, chunks in files:
            seen = os.lstat(path_of(dest, name))
            times = (seen.st_mtime_ns, seen.st_ctime_ns)
            rows.append((stored(dest), stored(name), seen.st_ino, seen.st_size, *times, seen.st_mode & 0o777, chunks))
        self._db.executemany("INSERT OR REPLACE INTO placed VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
        self._db.commit()

    def forget(self, dest: str) -> None:
        """Nothing is known of `dest` any more."""
        self._db.execute("DELETE FROM placed WHERE dest = ?", (stored(dest),))
        self._db.commit()


def stored(name: str) -> bytes:
    """A name as SQLite can hold it: lone surrogates are no text to it."""
    return os.fsencode(name)


def path_of(dest: str, name: str) -> str:
    """An empty name is the destination itself."""
    return "{}/{}".format(dest, name) if name else dest


def _stands(path: str, placed: Placed) -> bool:
    seen = _lstat(path)
    return seen is not None and (seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns) == placed[:4]


def _lstat(path: str) -> Optional[os.stat_result]:
    try:
        return os.lstat(path)
    except OSError:  # gone, or a folder on the way is
        return None


def _opened(path: str) -> sqlite3.Connection:
    db = sqlite3.connect(path)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = NORMAL")
    db.executescript(_SCHEMA)
    return db
