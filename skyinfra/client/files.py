"""Pack the workdir and local file mounts: one tar per tree, named by its sha256, sent only when the server lacks it.

Equal trees give equal tars: entries sorted, owners and times levelled, modes and symbolic links kept. The tar goes
through the digest into an unnamed temporary file, so a client that is killed leaves nothing behind.
"""

from __future__ import annotations

import hashlib
import os
import stat
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any

from skyinfra.client import transport
from skyinfra.client.ignore import Ignore
from skyinfra.model.home import Home
from skyinfra.runtime.boundary import boundary

__all__ = ["WORKDIR", "Progress", "is_local", "pack", "send_trees"]

WORKDIR = "~/sky_workdir"
LEVEL_TIME = 315532800
"""1980-01-01: the earliest time that a zip made of these files on the node can hold."""

Progress = Callable[[str, int, int], None]
"""Called with the destination, the bytes sent and the bytes in all."""


def send_trees(sources: Mapping[str, str], progress: Progress | None = None) -> dict[str, dict[str, str]]:
    """Send each local source, by destination; the `blobs` of a request body.

    Raises `ValueError` for a source that is missing or cannot be read.
    """
    blobs: dict[str, dict[str, str]] = {}
    for destination, source in sources.items():
        folder = Home.from_env().root / "tmp"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            digest, kind = pack(source, file)
            _send(file, digest, destination, progress)
        blobs[destination] = {"digest": digest, "kind": kind}
    return blobs


def is_local(source: Any) -> bool:
    """False for a bucket's URI and for everything that is not a path."""
    return isinstance(source, str) and "://" not in source


def pack(source: str, file: IO[bytes]) -> tuple[str, str]:
    """Write the tar of `source` to `file`; its sha256 and its kind (``dir`` or ``file``). Raises `ValueError`."""
    root = os.path.realpath(os.path.expanduser(source))
    if not os.path.exists(root):
        raise ValueError(f"{source}: no such file or folder")
    sink: Any = _Sink(file)
    is_folder = os.path.isdir(root)
    try:
        with tarfile.open(
            mode="w|", fileobj=sink, format=tarfile.GNU_FORMAT, bufsize=1 << 20, errors="surrogateescape"
        ) as tar:
            entries = _tree(root) if is_folder else iter([(root, os.path.basename(root))])
            for path, name in entries:
                _add(tar, path, name)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ValueError(f"{source}: cannot be packed: {error.filename or 'a file'}: {reason}") from error
    return sink.digest.hexdigest(), "dir" if is_folder else "file"


class _Sink:
    """A file for tarfile that hashes what passes."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return self._file.write(data)


def _tree(root: str) -> Iterator[tuple[str, str]]:
    """(path, name in the tar) of everything that travels, parents first, sorted."""
    ignore = Ignore(root)
    folders = [(root, "")]
    while folders:
        folder, prefix = folders.pop()
        ignore.enter(folder)
        inner: list[tuple[str, str]] = []
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
        for entry in entries:
            is_folder = entry.is_dir(follow_symlinks=False)
            if ignore.skips(entry.path, is_folder):
                continue
            yield entry.path, prefix + entry.name
            if is_folder:
                inner.append((entry.path, prefix + entry.name + "/"))
        folders += reversed(inner)


def _add(tar: tarfile.TarFile, path: str, name: str) -> None:
    found = os.lstat(path)
    entry = tarfile.TarInfo(name)
    entry.mtime = LEVEL_TIME
    entry.mode = stat.S_IMODE(found.st_mode)
    if stat.S_ISDIR(found.st_mode):
        entry.type = tarfile.DIRTYPE
        tar.addfile(entry)
    elif stat.S_ISLNK(found.st_mode):
        entry.type = tarfile.SYMTYPE
        entry.linkname = os.readlink(path)
        tar.addfile(entry)
    elif stat.S_ISREG(found.st_mode):
        with open(path, "rb") as file:
            entry.size = os.fstat(file.fileno()).st_size
            try:
                tar.addfile(entry, file)
            except OSError as error:
                raise OSError(error.errno, error.strerror or "it shrank while it was read", path) from error
    else:
        print(f"note: {path} is a socket, pipe or device and stays here", file=sys.stderr)


def _send(file: IO[bytes], digest: str, destination: str, progress: Progress | None) -> None:
    size = file.seek(0, os.SEEK_END)
    where = transport.path("blobs", digest)
    if _is_there(where):
        return
    upload: Any = _Metered(file, destination, size, progress) if progress is not None else file
    boundary("client.upload.before")
    transport.call("PUT", where, upload=upload, upload_bytes=size, timeout_s=600.0)
    boundary("client.upload.made")


def _is_there(where: str) -> bool:
    try:
        return transport.call("HEAD", where).status == 200
    except RuntimeError as error:
        if transport.status_of(error) != 404:
            raise
        return False


class _Metered:
    """A file that tells how much of it has been read."""

    def __init__(self, file: IO[bytes], destination: str, size: int, progress: Progress) -> None:
        self._file, self._destination, self._size, self._progress = file, destination, size, progress

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._progress(self._destination, self._file.tell(), self._size)
        return data

    def seek(self, offset: int) -> int:
        return self._file.seek(offset)
