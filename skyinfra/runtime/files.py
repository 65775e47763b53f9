"""Trees that travel to the node: their manifests and chunks on the way in, and putting them in their places.

`apply` first says what is missing, and then, when nothing is, puts every tree in its place. A manifest is checked as a
whole before anything is written (`tree.py`). Files that stand as an earlier apply left them are neither sent nor
written again (`placed.py`), not even the unchanged chunks of a big file. A symbolic link arrives as it is; nothing is
ever written through one. Each file arrives by rename, so a reader sees the old or the new; what the tree does not name
stays.
"""

import errno
import hashlib
import os
import re
import stat
import threading
import time
from typing import Any, Dict, Iterator, List, NamedTuple, Set, Tuple

from skyinfra.runtime import disk, tree
from skyinfra.runtime.boundary import boundary
from skyinfra.runtime.chunks import Chunks, MissingChunk, Place
from skyinfra.runtime.placed import Placed, Register, path_of
from skyinfra.runtime.protocol import FilesApply, FilesMissing
from skyinfra.runtime.tree import CHUNK_BYTES, Entry, UnsafePath

#: Manifests kept after they were applied: a second launch of the same tree sends nothing.
KEPT_TREES = 8
#: Chunks are gone from here as soon as they are in their files; what is left of a broken transfer stays a while.
KEPT_CHUNK_BYTES = 1 << 30
KEPT_CHUNKS_S = 600.0
#: So many chunks are named as missing at a time: the rest is asked for again.
MISSING_AT_ONCE = 20000
_DIGEST = re.compile(r"[0-9a-f]{64}\Z")


class WrongDigest(Exception):
    """The bytes are not those that were announced."""


class ManifestWriter:
    """One upload. `commit` makes the manifest visible, `discard` forgets it."""

    def __init__(self, path: str) -> None:
        self._path, self._tmp = path, "{}.{}.part".format(path, os.urandom(4).hex())
        self._hash, self._size = hashlib.sha256(), 0
        self._fd = os.open(self._tmp, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)

    def write(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > tree.MAX_MANIFEST_BYTES:
            raise ValueError("a manifest has {} bytes at most".format(tree.MAX_MANIFEST_BYTES))
        self._hash.update(data)
        disk.write_all(self._fd, data)

    def commit(self) -> None:
        """Raises `WrongDigest`."""
        boundary("agent.files.before")
        found = self._hash.hexdigest()
        if found != os.path.basename(self._path):
            raise WrongDigest("announced {}, received {}".format(os.path.basename(self._path), found))
        os.close(self._fd)
        self._fd = -1
        os.rename(self._tmp, self._path)
        boundary("agent.files.recorded")

    def discard(self) -> None:
        """Also after `commit`: then it only tidies up."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        disk.remove_file(self._tmp)


class _Wanted(NamedTuple):
    """One tree of an apply: its manifest's path, and where it goes."""

    manifest: str
    dest: str
    is_file: bool

    def batches(self) -> "Iterator[List[Entry]]":
        """Checked entries. Raises `ValueError`, `UnsafePath`. Of a single file the name is empty: it is the dest."""
        with open(self.manifest, "rb") as file:
            if self.is_file:
                yield [tree.the_file(tree.read(file))._replace(name="")]
            else:
                yield from tree.batches(tree.read(file))


class Files:
    def __init__(self, folder: str, home: str, absolute_paths: bool) -> None:
        self._folder, self._home, self._absolute = folder, home, absolute_paths
        self._applying = threading.Lock()  # guards the destinations: two applies of one tree would mix their renames
        disk.private_folder(folder)
        for name in os.listdir(folder):
            if name.endswith(".part"):
                disk.remove_file(os.path.join(folder, name))
        self.chunks = Chunks(os.path.join(folder, "chunks"))

    def manifest(self, digest: str) -> str:
        """Its path, there or not. Raises `ValueError`."""
        if not _DIGEST.match(digest):
            raise ValueError("a digest is 64 hex digits, not {!r}".format(digest[:80]))
        return os.path.join(self._folder, digest)

    def has(self, digest: str) -> bool:
        return os.path.exists(self.manifest(digest))

    def receive(self, digest: str) -> ManifestWriter:
        return ManifestWriter(self.manifest(digest))

    def apply(self, wanted: FilesApply) -> FilesMissing:
        """Put every tree in its place, or say what has to be sent before. Blocks: call it in a thread.

        Raises `UnsafePath`, `ValueError` (no manifest, bad digest or kind), `OSError`.
        """
        with self._applying:
            trees = [self._wanted(one) for one in wanted.trees]
            absent = [t.manifest for t in trees if not os.path.exists(t.manifest)]
            if absent:
                return FilesMissing(trees=[os.path.basename(path) for path in dict.fromkeys(absent)])
            register = Register(os.path.join(self._folder, "placed.db"))
            try:
                missing, differing = self._missing(trees, register)
                if missing.chunks:
                    return missing
                boundary("agent.apply.before")
                used: Set[int] = set()
                for one in differing:
                    used |= _Placing(self.chunks, register, one).run()
                boundary("agent.apply.made")
                self.chunks.forget(used)  # it is all in its files now
            except MissingChunk:  # lost since it was received: said again, and sent again
                return self._missing(trees, register)[0]
            finally:
                register.close()
            self._forget_old(len(trees))
            boundary("agent.apply.recorded")
            return FilesMissing()

    def _wanted(self, one: Dict[str, str]) -> _Wanted:
        for name in ("digest", "dest"):
            if name not in one:
                raise ValueError("a tree needs {}".format(name))
        kind = one.get("kind", "dir")
        if kind not in ("dir", "file"):
            raise ValueError("kind is dir or file, not {!r}".format(kind))
        return _Wanted(self.manifest(one["digest"]), self.destination(one["dest"]), kind == "file")

    def _missing(self, trees: List[_Wanted], register: Register) -> "Tuple[FilesMissing, List[_Wanted]]":
        """Chunks that are neither here nor in a file that stands in its place; and the trees that differ from what
        stands. Every manifest is read to its end, so that a bad one is refused before anything is sent."""
        found: Dict[bytes, None] = {}
        differing = []
        for one in trees:
            os.utime(one.manifest)  # used now: kept longest
            stands = True
            for batch in one.batches():
                files = [entry for entry in batch if entry.kind == "f"]
                there = register.untouched(one.dest, files)
                stands = stands and all(_in_place(entry, one.dest, there) for entry in batch)
                needed = [] if stands else [d for e in files for d in _needed(e, there.get(e.name))]
                if needed and len(found) < MISSING_AT_ONCE:
                    found.update(dict.fromkeys(self.chunks.missing(needed)))
            if not (stands and os.path.isdir(os.path.dirname(one.dest) if one.is_file else one.dest)):
                differing.append(one)
        return FilesMissing(chunks=[digest.hex() for digest in found]), differing

    def destination(self, dest: str) -> str:
        """Its path. Raises `UnsafePath`."""
        home = os.path.realpath(self._home)
        if dest == "~" or dest.startswith("~/"):
            dest = dest[2:]
        if "\0" in dest or ".." in dest.split("/"):
            raise UnsafePath("destination {!r} holds '..' or a zero byte".format(dest))
        path = os.path.join(home, dest) if dest else home
        real = os.path.realpath(path)
        if not self._absolute and real != home and not real.startswith(home + "/"):
            raise UnsafePath("destination {!r} lies outside the node's home".format(dest))
        return path.rstrip("/")

    def _forget_old(self, applied: int) -> None:
        """An upload whose apply is still to come may lose chunks that it shares with this one: it is told so."""
        names = [n for n in os.listdir(self._folder) if _DIGEST.match(n)]
        names.sort(key=lambda n: os.stat(os.path.join(self._folder, n)).st_mtime, reverse=True)
        for name in names[max(KEPT_TREES, applied) :]:
            disk.remove_file(os.path.join(self._folder, name))
        self.chunks.shrink(KEPT_CHUNK_BYTES, time.time() - KEPT_CHUNKS_S, set())


def _needed(entry: Entry, there: "Placed | None") -> List[bytes]:
    """The chunks of a file that its predecessor, if it stands as we left it, does not have."""
    if there is None:
        return tree.digests(entry.chunks)
    if there.chunks == entry.chunks:
        return []
    had = set(tree.digests(there.chunks))
    return [digest for digest in tree.digests(entry.chunks) if digest not in had]


class _Placing:
    """One tree being put in its place. Raises `MissingChunk`, `OSError`."""

    def __init__(self, chunks: Chunks, register: Register, wanted: _Wanted) -> None:
        self._chunks, self._register, self._wanted = chunks, register, wanted
        self._dest = wanted.dest
        root = os.path.dirname(self._dest) if wanted.is_file else self._dest
        if wanted.is_file and os.path.isdir(self._dest):
            raise ValueError("the destination {} is a folder on the node: name the file".format(self._dest))
        try:
            os.makedirs(root, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise ValueError("the destination {} is, or lies below, a file on the node".format(self._dest)) from None
        #: A name of ours in the tree's own folder: what a killed agent left is found and overwritten.
        self._tmp = "{}/{}".format(root, tree.ARRIVING)
        self._used: Set[int] = set()

    def run(self) -> "Set[int]":
        """Returns the packs that were used."""
        folders = []
        try:
            for batch in self._wanted.batches():
                folders += [entry for entry in batch if entry.kind == "d"]
                self._place(batch)
        finally:
            disk.remove_file(self._tmp)  # renamed already, unless something failed
        for entry in reversed(folders):  # last, so that a read-only folder can be filled
            os.chmod(path_of(self._dest, entry.name), entry.mode | stat.S_IRWXU)
        return self._used

    def _place(self, batch: List[Entry]) -> None:
        files = [entry for entry in batch if entry.kind == "f"]
        there = self._register.untouched(self._dest, files)
        places = self._chunks.locate(d for e in files for d in _needed(e, there.get(e.name)))
        self._used.update(place.pack for place in places.values())
        written = []
        for entry in batch:
            path = path_of(self._dest, entry.name)
            if entry.kind == "d":
                _ensure_folder(path)
            elif entry.kind == "l":
                if not _is_link(path, entry.target):
                    self._arrive(path, lambda tmp, entry=entry: os.symlink(entry.target, tmp))
            elif not _same(entry, there.get(entry.name)):
                self._file(path, entry, there.get(entry.name), places)
                written.append((entry.name, entry.chunks))
        if written:
            self._register.record(self._dest, written)

    def _file(self, path: str, entry: Entry, there: "Placed | None", places: Dict[bytes, Place]) -> None:
        if there is not None and there.chunks == entry.chunks:  # only mode or time differ
            os.chmod(path, entry.mode)
            os.utime(path, ns=(entry.mtime_ns, entry.mtime_ns))
            return

        def write(tmp: str) -> None:
            fd = os.open(tmp, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                self._fill(fd, path, entry, there, places)
                os.fchmod(fd, entry.mode)
                os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
            finally:
                os.close(fd)

        self._arrive(path, write)

    def _fill(self, fd: int, path: str, entry: Entry, there: "Placed | None", places: Dict[bytes, Place]) -> None:
        old = {d: i * CHUNK_BYTES for i, d in enumerate(tree.digests(there.chunks))} if there is not None else {}
        ends_in_hole = False
        for digest in tree.digests(entry.chunks):
            place = places.get(digest)
            data = self._chunks.read(digest, place) if place is not None else self._from(path, old, digest)
            ends_in_hole = len(data) == CHUNK_BYTES and not data.strip(b"\0")
            if ends_in_hole:  # as it may have been where it came from
                os.lseek(fd, CHUNK_BYTES, os.SEEK_CUR)
            else:
                disk.write_all(fd, data)
        if ends_in_hole:
            os.ftruncate(fd, entry.size)
        if os.fstat(fd).st_size != entry.size:
            raise ValueError("{!r} has {} bytes, its chunks {}".format(entry.name, entry.size, os.fstat(fd).st_size))

    def _from(self, path: str, old: Dict[bytes, int], digest: bytes) -> bytes:
        """A chunk of the file that this one replaces."""
        if digest in old:
            with open(path, "rb") as file:
                file.seek(old[digest])
                data = file.read(CHUNK_BYTES)
            if hashlib.sha256(data).digest() == digest:
                return data
            self._register.forget(self._dest)  # what was believed of this place is not so
        raise MissingChunk("chunk {} is not here".format(digest.hex()))

    def _arrive(self, path: str, make: Any) -> None:
        """`make` a temporary name and rename it to `path`; a folder in the way gives way."""
        disk.remove_file(self._tmp)
        make(self._tmp)
        try:
            os.rename(self._tmp, path)
        except IsADirectoryError:
            disk.remove_tree(path)
            os.rename(self._tmp, path)
        except OSError as exc:
            if exc.errno != errno.EXDEV:
                raise
            tmp = "{}/{}".format(os.path.dirname(path), tree.ARRIVING)  # another file system begins below the root
            disk.remove_file(tmp)
            make(tmp)
            os.rename(tmp, path)


def _same(entry: Entry, there: "Placed | None") -> bool:
    return there is not None and (there.chunks, there.modified, there.mode) == (
        entry.chunks,
        entry.mtime_ns,
        entry.mode,
    )


def _in_place(entry: Entry, dest: str, there: "Dict[str, Placed]") -> bool:
    """Nothing is to be done about it."""
    if entry.kind == "f":
        return _same(entry, there.get(entry.name))
    path = path_of(dest, entry.name)
    if entry.kind == "l":
        return _is_link(path, entry.target)
    try:
        seen = os.lstat(path).st_mode
    except OSError:
        return False
    return stat.S_ISDIR(seen) and stat.S_IMODE(seen) == entry.mode | stat.S_IRWXU


def _is_link(path: str, target: str) -> bool:
    try:
        return os.readlink(path) == target
    except OSError:
        return False


def _ensure_folder(path: str) -> None:
    """A real folder: a file or link that stood there before gives way."""
    try:
        if stat.S_ISDIR(os.lstat(path).st_mode):
            return
        os.unlink(path)
    except FileNotFoundError:
        pass
    os.mkdir(path)
