"""What travels of a folder or file, as a manifest and the places of its chunks on this disk.

Equal trees give equal manifests: entries in a fixed order, owners and folder times left out; modes, symbolic links and
the times of files are kept. Hard links become files.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, NamedTuple

from skyinfra.client.ignore import Ignore
from skyinfra.client.stat_cache import StatCache
from skyinfra.model.home import Home
from skyinfra.runtime import tree
from skyinfra.runtime.tree import CHUNK_BYTES, Entry

__all__ = ["Changed", "Piece", "Tree", "read_tree"]

TRIES = 3
_HOLE = hashlib.sha256(bytes(CHUNK_BYTES)).digest()


class Changed(Exception):
    """A file is not any more what it was a moment ago."""


class Piece(NamedTuple):
    """Where a chunk can be read."""

    path: str
    at: int
    size: int


@dataclass
class Tree:
    """`manifest` has no name on the disk: close it when it was sent."""

    kind: str
    manifest: IO[bytes]
    digest: str = ""
    pieces: dict[str, Piece] = field(default_factory=dict)
    """By the digest of the chunk, in hex."""


def read_tree(source: str, trust_cache: bool = True) -> Tree:
    """Read what `source` is now. Without `trust_cache` every file is read.

    Raises `ValueError` for a source that is missing or cannot be read.
    """
    root = os.path.realpath(os.path.expanduser(source))
    if not os.path.exists(root):
        raise ValueError(f"{source}: no such file or folder")
    is_folder = os.path.isdir(root)
    if not (is_folder or os.path.isfile(root)):
        raise ValueError(f"{source}: neither a file nor a folder")
    folder = Home.from_env().root / "tmp"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    cache = StatCache(root, trust_cache)
    found = Tree("dir" if is_folder else "file", tempfile.TemporaryFile(dir=folder))  # noqa: SIM115 - see `Tree`
    try:
        seen = hashlib.sha256()
        for line in _lines(root, is_folder, found, cache, source):
            seen.update(line)
            found.manifest.write(line)
        found.digest = seen.hexdigest()
    except OSError as error:
        found.manifest.close()
        reason = error.strerror or str(error)
        raise ValueError(f"{source}: cannot be read: {error.filename or 'a file'}: {reason}") from error
    except BaseException:
        found.manifest.close()
        raise
    cache.save()
    return found


def _lines(root: str, is_folder: bool, found: Tree, cache: StatCache, source: str) -> Iterator[bytes]:
    yield tree.header()
    entries = _walk(root) if is_folder else iter([(root, os.path.basename(root))])
    count = 0
    for path, name in entries:
        entry = _entry(path, name, cache)
        if entry is None:
            continue
        count += 1
        if count > tree.MAX_ENTRIES:
            raise ValueError(
                f"{source}: more than {tree.MAX_ENTRIES:,} files: leave out what the task does not need with a "
                ".skyignore, or keep the data in a bucket"
            )
        for at, chunk in enumerate(tree.digests(entry.chunks)):
            start = at * CHUNK_BYTES
            found.pieces.setdefault(chunk.hex(), Piece(path, start, min(CHUNK_BYTES, entry.size - start)))
        yield tree.line_of(entry)


def _walk(root: str) -> Iterator[tuple[str, str]]:
    """(path, name in the tree) of everything that travels, level by level, sorted."""
    ignore = Ignore(root)
    level = [(root, "")]
    while level:
        found: list[tuple[str, str, bool]] = []
        for folder, prefix in level:
            ignore.enter(folder)
            with os.scandir(folder) as entries:
                ordered = sorted(entries, key=lambda entry: entry.name)
            found += [(entry.path, prefix + entry.name, entry.is_dir(follow_symlinks=False)) for entry in ordered]
        skipped = ignore.skipped((path, is_folder) for path, _, is_folder in found)
        kept = [(path, name, is_folder) for path, name, is_folder in found if path not in skipped]
        for path, name, _ in kept:
            yield path, name
        level = [(path, name + "/") for path, name, is_folder in kept if is_folder]


def _entry(path: str, name: str, cache: StatCache) -> Entry | None:
    """None for what stays here, with a note."""
    seen = os.lstat(path)
    mode = stat.S_IMODE(seen.st_mode) & 0o777
    if stat.S_ISDIR(seen.st_mode):
        return Entry("d", name, mode)
    if stat.S_ISLNK(seen.st_mode):
        return Entry("l", name, target=os.readlink(path))
    if not stat.S_ISREG(seen.st_mode):
        print(f"note: {path} is a socket, pipe or device and stays here", file=sys.stderr)
        return None
    chunks = cache.get(name, seen)
    if chunks is None:
        read_at = time.time()
        seen, chunks = _digests(path)
        cache.put(name, seen, read_at, chunks)
    return Entry("f", name, mode, seen.st_mtime_ns, seen.st_size, chunks)


def _digests(path: str) -> tuple[os.stat_result, bytes]:
    """What the file was, and its chunks. Raises `OSError`, also for a file that changes all the time."""
    for _ in range(TRIES):
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)  # what was a file may be a pipe by now
        try:
            before = os.fstat(fd)
            chunks = b"".join(_chunks(fd, before.st_size))
            after = os.fstat(fd)
        finally:
            os.close(fd)
        if _same(before, after) and len(chunks) == tree.DIGEST_BYTES * -(-before.st_size // CHUNK_BYTES):
            return before, chunks
    raise OSError(0, "it changes while it is read", path)


def _same(before: os.stat_result, after: os.stat_result) -> bool:
    return (before.st_size, before.st_mtime_ns, before.st_ctime_ns) == (
        after.st_size,
        after.st_mtime_ns,
        after.st_ctime_ns,
    )


def _chunks(fd: int, size: int) -> Iterator[bytes]:
    """The digests; of a hole without reading it."""
    data_from = 0
    for at in range(0, size, CHUNK_BYTES):
        if at + CHUNK_BYTES <= size and at >= data_from:
            data_from = _next_data(fd, at, size)
        if at + CHUNK_BYTES <= min(size, data_from):
            yield _HOLE
            continue
        data = os.pread(fd, CHUNK_BYTES, at)
        if not data:
            return
        yield hashlib.sha256(data).digest()


def _next_data(fd: int, at: int, size: int) -> int:
    try:
        return os.lseek(fd, at, os.SEEK_DATA)
    except OSError as error:
        return size if error.errno == errno.ENXIO else at  # no data any more; a file system that does not tell
