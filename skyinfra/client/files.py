"""Send the workdir and local file mounts: of each tree its manifest, and those chunks that the server lacks.

The server says what is missing, so an upload that broke off, by whatever cause, goes on at the chunk; a tree that is
there costs one question.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from skyinfra.client import transport
from skyinfra.client.trees import Changed, Piece, Tree, read_tree
from skyinfra.runtime.boundary import boundary
from skyinfra.runtime.chunks import HEAD_BYTES, head_of

__all__ = ["WORKDIR", "Progress", "is_local", "send_trees"]

WORKDIR = "~/sky_workdir"
PACK_BYTES = 32 << 20
"""Sent in one call."""
READ_BYTES = 1 << 20
TRIES = 3
BROKEN_TRIES = 5
"""How often an upload may break off without having brought anything."""

Progress = Callable[[str, int, int], None]
"""Called with the destination, the bytes sent and the bytes in all."""


def send_trees(sources: Mapping[str, str], progress: Progress | None = None) -> dict[str, dict[str, str]]:
    """Send each local source, by destination; the `blobs` of a request body.

    Raises `ValueError` for a source that is missing, cannot be read, or is more than the server takes.
    """
    return {destination: _send_source(source, destination, progress) for destination, source in sources.items()}


def is_local(source: Any) -> bool:
    """False for a bucket's URI and for everything that is not a path."""
    return isinstance(source, str) and "://" not in source


def _send_source(source: str, destination: str, progress: Progress | None) -> dict[str, str]:
    for attempt in range(TRIES):
        tree = read_tree(source, trust_cache=attempt == 0)
        with tree.manifest:
            try:
                _Upload(tree, source, destination, progress).run()
            except Changed:
                continue  # a file was written meanwhile: what is there now is sent
        return {"digest": tree.digest, "kind": tree.kind}
    raise ValueError(f"{source}: files in it change all the time: send it when nobody writes there")


class _Upload:
    """One tree on its way to the server."""

    def __init__(self, tree: Tree, source: str, destination: str, progress: Progress | None) -> None:
        self._tree, self._source, self._destination, self._progress = tree, source, destination, progress
        self._sent = self._in_all = 0

    def run(self) -> None:
        """Raises `Changed`, `ValueError`."""
        missing = self._missing()
        if missing is None:
            self._send_manifest()
            missing = self._missing() or []
        self._in_all = sum(self._tree.pieces[digest].size for digest in missing)
        failures = 0
        while missing:
            try:
                for pack in _packs(missing, self._tree.pieces):
                    self._send_pack(pack)
            except _broken() as error:
                failures += 1
                if failures >= BROKEN_TRIES:
                    raise error
            before, missing = missing, self._missing() or []
            if missing != before:
                failures = 0
            self._in_all = max(self._in_all, self._sent + sum(self._tree.pieces[d].size for d in missing))

    def _missing(self) -> list[str] | None:
        """Chunks that the server lacks; None when it lacks the manifest."""
        try:
            return transport.call("GET", transport.path("blobs", self._tree.digest, "missing")).json()["missing"]
        except (ValueError, RuntimeError) as error:
            if transport.status_of(error) != 404:
                raise
            return None

    def _send_manifest(self) -> None:
        manifest = self._tree.manifest
        size = manifest.seek(0, os.SEEK_END)
        where = transport.path("blobs", self._tree.digest)
        boundary("client.upload.before")
        try:
            transport.call("PUT", where, upload=manifest, upload_bytes=size, timeout_s=600.0)
        except (ValueError, OSError, RuntimeError) as error:
            if transport.status_of(error) in (413, 507):
                raise self._refused(error) from error
            raise
        boundary("client.upload.made")

    def _send_pack(self, pack: Sequence[tuple[str, Piece]]) -> None:
        size = sum(HEAD_BYTES + piece.size for _, piece in pack)
        body: Any = _PackBody(pack, self._went)
        boundary("client.pack.before")
        try:
            transport.call("POST", transport.path("blobs"), upload=body, upload_bytes=size, timeout_s=600.0)
        except (ValueError, OSError, RuntimeError) as error:
            if transport.status_of(error) == 422:  # not what the digest says: read again
                raise Changed from error
            if transport.status_of(error) == 507:
                raise self._refused(error) from error
            raise
        boundary("client.pack.made")

    def _went(self, size: int) -> None:
        self._sent += size
        if self._progress is not None:
            self._progress(self._destination, self._sent, self._in_all)

    def _refused(self, error: Exception) -> Exception:
        from skyinfra.model.exceptions import with_hint

        return with_hint(ValueError(f"{self._source}: {error}"), getattr(error, "hint", None))


def _broken() -> tuple[type[Exception], ...]:
    """What an upload goes on after."""
    from skyinfra.model import exceptions

    return exceptions.ApiServerConnectionError, exceptions.ServerTemporarilyUnavailableError


def _packs(digests: Sequence[str], pieces: Mapping[str, Piece]) -> Iterator[list[tuple[str, Piece]]]:
    pack: list[tuple[str, Piece]] = []
    size = 0
    for digest in digests:
        pack.append((digest, pieces[digest]))
        size += pieces[digest].size
        if size >= PACK_BYTES:
            yield pack
            pack, size = [], 0
    if pack:
        yield pack


class _PackBody:
    """A pack (`runtime/chunks.py`) as a file that is read once, from the files it is made of. Raises `Changed`."""

    def __init__(self, pack: Sequence[tuple[str, Piece]], went: Callable[[int], None]) -> None:
        self._pack, self._went = pack, went
        self._records = iter(self._parts())

    def read(self, size: int = -1) -> bytes:
        """Some of it, however much was asked; empty at the end."""
        return next(self._records, b"")

    def seek(self, offset: int) -> int:
        self._records = iter(self._parts())
        return offset

    def _parts(self) -> Iterator[bytes]:
        part = bytearray()
        for digest, piece in self._pack:
            part += head_of(bytes.fromhex(digest), piece.size)
            part += _read(piece)
            self._went(piece.size)
            if len(part) >= READ_BYTES:
                yield bytes(part)
                part.clear()
        if part:
            yield bytes(part)


def _read(piece: Piece) -> bytes:
    try:
        fd = os.open(piece.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            data = os.pread(fd, piece.size, piece.at)
        finally:
            os.close(fd)
    except OSError as error:
        raise Changed from error
    if len(data) != piece.size:
        raise Changed
    return data
