"""Chunks of files by digest: received in packs, kept in packs, found by an index.

A pack, on the wire and on disk, is a row of records: sha256 (32 bytes), length (4 bytes, big endian), content. A chunk
is verified before it is kept, and a pack that breaks off keeps the chunks that came whole: an interrupted transfer goes
on at the chunk. The index (SQLite) only says where things are: it is made again from the packs when it is lost, and a
process that is killed at any point leaves nothing that the next one would take for a chunk and that is none.

Used by the server and by the agent. Standard library only, Python >= 3.8. Safe for several threads.
"""

import hashlib
import os
import re
import sqlite3
import threading
import time
from typing import Any, Dict, Iterable, Iterator, List, NamedTuple, Optional, Set, Tuple

from skyinfra.runtime import disk
from skyinfra.runtime.boundary import boundary
from skyinfra.runtime.tree import CHUNK_BYTES, DIGEST_BYTES

#: A pack on disk is not longer, so that what is not used any more can be removed in pieces.
PACK_BYTES = 64 << 20
HEAD_BYTES = DIGEST_BYTES + 4
_ASK_AT_ONCE = 500
_SCHEMA = """
CREATE TABLE IF NOT EXISTS packs (id INTEGER PRIMARY KEY, bytes INTEGER NOT NULL, used REAL NOT NULL);
CREATE TABLE IF NOT EXISTS chunks (digest BLOB PRIMARY KEY, pack INTEGER NOT NULL, at INTEGER NOT NULL,
                                   size INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS chunks_of_pack ON chunks (pack);
"""
_PACK = re.compile(r"(\d{1,18})\.pack\Z")


class BadPack(Exception):
    """The bytes are no pack, or a chunk in it is not what its digest says."""


class MissingChunk(Exception):
    """Not here, or not any more."""


class Place(NamedTuple):
    pack: int
    at: int
    size: int


def head_of(digest: bytes, size: int) -> bytes:
    """What stands before a chunk in a pack."""
    return digest + size.to_bytes(4, "big")


class Chunks:
    """The folder is opened at the first use: what is never asked costs nothing."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._lock = threading.RLock()  # guards the index, `_next`, `_own` and the pack that is open for reading
        self._db: Optional[sqlite3.Connection] = None
        self._next = 1
        self._own: Set[int] = set()  # packs that this process received, and so knows to be true
        self._reading: Optional[Tuple[int, int]] = None  # pack, file descriptor

    # --- asking -----------------------------------------------------------------------------------------------------

    def locate(self, digests: Iterable[bytes], touch: bool = True) -> Dict[bytes, Place]:
        """Where those are that are here; with `touch` their packs count as used now."""
        wanted = list(digests)
        found: Dict[bytes, Place] = {}
        with self._lock:
            db = self._index()
            for start in range(0, len(wanted), _ASK_AT_ONCE):
                part = wanted[start : start + _ASK_AT_ONCE]
                marks = ",".join("?" * len(part))
                rows = db.execute("SELECT digest, pack, at, size FROM chunks WHERE digest IN ({})".format(marks), part)
                found.update((bytes(row[0]), Place(*row[1:])) for row in rows)
            if touch and found:
                now, packs = time.time(), {place.pack for place in found.values()}
                db.executemany("UPDATE packs SET used = ? WHERE id = ?", [(now, pack) for pack in packs])
                db.commit()
        return found

    def missing(self, digests: Iterable[bytes]) -> List[bytes]:
        """Those that are not here, each once, in order."""
        wanted = list(dict.fromkeys(digests))
        found = self.locate(wanted)
        return [digest for digest in wanted if digest not in found]

    def read(self, digest: bytes, place: Place) -> bytes:
        """The chunk's content. Raises `MissingChunk`."""
        with self._lock:
            try:
                data = os.pread(self._open(place.pack), place.size, place.at)
            except FileNotFoundError:
                data = b""
            # a pack of a former process may have been cut by a power failure, or be full of zeros
            good = place.pack in self._own or hashlib.sha256(data).digest() == digest
            if len(data) != place.size or not good:
                self.forget({place.pack})
                raise MissingChunk("chunk {} is not what it was".format(digest.hex()))
            return data

    def used_since(self, at: float) -> "Set[int]":
        """Packs that somebody used since then (seconds since the epoch)."""
        with self._lock:
            return {row[0] for row in self._index().execute("SELECT id FROM packs WHERE used >= ?", (at,))}

    def bytes_kept(self) -> int:
        with self._lock:
            return int(self._index().execute("SELECT coalesce(sum(bytes), 0) FROM packs").fetchone()[0])

    # --- receiving --------------------------------------------------------------------------------------------------

    def receive(self) -> "PackWriter":
        """For one pack that arrives."""
        with self._lock:
            self._index()
        return PackWriter(self)

    def part_path(self) -> str:
        return os.path.join(self._folder, "{}.part".format(os.urandom(6).hex()))

    def keep(self, part: str, size: int, records: List[Tuple[bytes, int, int]]) -> None:
        """Make a written file a pack of this store. It is not waited until it is on the disk: a chunk that a power cut
        took is noticed when it is read, and sent again."""
        boundary("chunks.pack.before")
        with self._lock:
            pack, self._next = self._next, self._next + 1
            os.rename(part, self._path(pack))
            boundary("chunks.pack.made")
            self._own.add(pack)
            self._record(pack, size, records)
        boundary("chunks.pack.recorded")

    # --- forgetting -------------------------------------------------------------------------------------------------

    def forget(self, packs: Iterable[int]) -> None:
        with self._lock:
            db = self._index()
            for pack in packs:
                self._close_reading()
                disk.remove_file(self._path(pack))
                self._own.discard(pack)
                db.execute("DELETE FROM chunks WHERE pack = ?", (pack,))
                db.execute("DELETE FROM packs WHERE id = ?", (pack,))
            db.commit()

    def shrink(self, limit: int, unused_since: float, spared: "Set[int]") -> int:
        """Forget packs that nobody used since then (seconds since the epoch), and then the longest unused ones until
        `limit` bytes are left; never one of `spared`. Returns the bytes that are left."""
        with self._lock:
            rows = self._index().execute("SELECT id, bytes, used FROM packs ORDER BY used, id").fetchall()
            left = sum(row[1] for row in rows)
            gone = []
            for pack, size, used in rows:
                if pack not in spared and (used < unused_since or left > limit):
                    gone.append(pack)
                    left -= size
            self.forget(gone)
            return left

    # --- below ------------------------------------------------------------------------------------------------------

    def _path(self, pack: int) -> str:
        return os.path.join(self._folder, "{}.pack".format(pack))

    def _open(self, pack: int) -> int:
        if self._reading is None or self._reading[0] != pack:
            self._close_reading()
            self._reading = (pack, os.open(self._path(pack), os.O_RDONLY))
        return self._reading[1]

    def _close_reading(self) -> None:
        if self._reading is not None:
            os.close(self._reading[1])
            self._reading = None

    def _index(self) -> sqlite3.Connection:
        if self._db is None:
            disk.private_folder(self._folder)
            try:
                self._db = self._opened()
            except sqlite3.DatabaseError:  # damaged: the packs know everything that it knew
                for suffix in ("", "-wal", "-shm"):
                    disk.remove_file(self._index_path() + suffix)
                self._db = self._opened()
            self._reconcile(self._db)
        return self._db

    def _index_path(self) -> str:
        return os.path.join(self._folder, "index.db")

    def _opened(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._index_path(), check_same_thread=False)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.executescript(_SCHEMA)
        return db

    def _reconcile(self, db: sqlite3.Connection) -> None:
        """Packs that the index does not know, torn ones included, are read; rows without their file go."""
        names = os.listdir(self._folder)
        there = {int(match[1]) for match in map(_PACK.match, names) if match}
        known = {row[0] for row in db.execute("SELECT id FROM packs")}
        self._next = max(there | known | {0}) + 1
        self.forget(known - there)
        for name in names:
            if name.endswith(".part"):
                there.add(self._next)
                os.rename(os.path.join(self._folder, name), self._path(self._next))
                self._next += 1
        for pack in sorted(there - known):
            self._adopt(pack)

    def _adopt(self, pack: int) -> None:
        """Index what is whole of a pack that was not recorded, and cut off the rest."""
        path = self._path(pack)
        with open(path, "r+b") as file:
            records = list(_scan(file))
            end = records[-1][1] + records[-1][2] if records else 0
            file.truncate(end)
        if records:
            self._record(pack, end, records)
        else:
            disk.remove_file(path)

    def _record(self, pack: int, size: int, records: List[Tuple[bytes, int, int]]) -> None:
        db = self._index()
        rows = [(digest, pack, at, length) for digest, at, length in records]
        db.execute("INSERT INTO packs VALUES (?, ?, ?)", (pack, size, time.time()))
        db.executemany("INSERT OR REPLACE INTO chunks VALUES (?, ?, ?, ?)", rows)
        db.commit()


def _scan(file: Any) -> Iterator[Tuple[bytes, int, int]]:
    """(digest, offset, length) of the whole and true records at the start of a file."""
    while True:
        head = file.read(HEAD_BYTES)
        size = int.from_bytes(head[DIGEST_BYTES:], "big")
        if len(head) < HEAD_BYTES or size > CHUNK_BYTES:
            return
        at = file.tell()
        data = file.read(size)
        if len(data) != size or hashlib.sha256(data).digest() != head[:DIGEST_BYTES]:
            return
        yield head[:DIGEST_BYTES], at, size


class PackWriter:
    """A pack on its way in: `write` what arrives, then `close`, whatever happened: whole chunks are kept.

    Bytes go to the file as they come; what follows the last whole and true chunk is cut off when the file is finished.
    """

    def __init__(self, chunks: Chunks) -> None:
        self._chunks = chunks
        self._part, self._fd, self._size = "", -1, 0
        self._records: List[Tuple[bytes, int, int]] = []
        self._head = bytearray()  # of the chunk that is arriving
        self._left, self._hash = 0, hashlib.sha256()  # of its content
        self._bad = ""

    def write(self, data: bytes) -> None:
        """Raises `BadPack`, `OSError`."""
        start = at = 0
        with memoryview(data) as view:
            while at < len(view) and not self._bad:
                at = self._take(view, at, start)
                if not self._head and self._size + at - start >= PACK_BYTES:
                    self._append(view[start:at])
                    self._finish()
                    start = at
            self._append(view[start:at])
        if self._bad:
            raise BadPack(self._bad)

    def close(self) -> bool:
        """Keep what came whole; False when something was left over. Raises `OSError`."""
        whole = not self._head
        self._finish()
        return whole

    def _take(self, view: memoryview, at: int, start: int) -> int:
        """The next piece of a head or of a content; where the one after it begins. Written will be `view[start:]`."""
        if len(self._head) < HEAD_BYTES:
            end = min(len(view), at + HEAD_BYTES - len(self._head))
            self._head += view[at:end]
            if len(self._head) == HEAD_BYTES:
                self._left, self._hash = int.from_bytes(self._head[DIGEST_BYTES:], "big"), hashlib.sha256()
                if self._left > CHUNK_BYTES:
                    self._bad = "a chunk has {} bytes at most, not {}".format(CHUNK_BYTES, self._left)
        else:
            end = min(len(view), at + self._left)
            self._hash.update(view[at:end])
            self._left -= end - at
        if len(self._head) == HEAD_BYTES and self._left == 0:
            self._chunk_ends(self._size + end - start)
        return end

    def _chunk_ends(self, end: int) -> None:
        digest, size = bytes(self._head[:DIGEST_BYTES]), int.from_bytes(self._head[DIGEST_BYTES:], "big")
        if self._hash.digest() != digest:
            self._bad = "a chunk is not what its digest {} says".format(digest.hex())
            return
        self._records.append((digest, end - size, size))
        self._head.clear()

    def _append(self, data: memoryview) -> None:
        if not data:
            return
        if self._fd < 0:
            self._part = self._chunks.part_path()
            self._fd = os.open(self._part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        disk.write_all(self._fd, data)
        self._size += len(data)

    def _finish(self) -> None:
        if self._fd < 0:
            return
        fd, self._fd = self._fd, -1
        records, self._records = self._records, []
        size, self._size = self._size, 0
        try:
            if records:
                end = records[-1][1] + records[-1][2]
                if end != size:
                    os.ftruncate(fd, end)
                self._chunks.keep(self._part, end, records)
        finally:
            os.close(fd)
            disk.remove_file(self._part)  # renamed already, unless something failed
