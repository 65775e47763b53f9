"""Uploaded trees: a manifest per tree, by digest, and the chunks of all of them. Kept until a day after nobody needs
them, within limits. Streamed to disk, never in memory whole."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Set
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from skyinfra.runtime import tree
from skyinfra.runtime.boundary import boundary
from skyinfra.runtime.chunks import HEAD_BYTES, BadPack, Chunks, MissingChunk, Place, head_of
from skyinfra.server import old_tars
from skyinfra.server.answers import HttpError
from skyinfra.server.vault import private_folder

__all__ = ["Blobs", "Limits"]

PART = 1 << 20
PACK_BYTES = 32 << 20
"""What is sent to a node at a time: what is lost of it with the connection is a part of that."""
MISSING_AT_ONCE = 20000
MID_UPLOAD_S = 3600.0
"""Chunks that somebody asked for so recently may belong to an upload whose request is still to come."""
_DIGEST = re.compile(r"[0-9a-f]{64}")
_GB = 1_000_000_000
_BECAME = b"a tar, now the tree "


@dataclass(frozen=True)
class Limits:
    tree_bytes: int = 20 * _GB
    """Content of one tree. More is rather a data set, or a folder that somebody forgot in the workdir: at 100 MB/s it
    would take minutes to send, again and again."""
    store_bytes: int = 50 * _GB
    """All chunks together."""
    reserve_bytes: int = 1 * _GB
    """Left free on the disk, for the database and the stacks."""


class Blobs:
    def __init__(self, folder: Path, chunks: Path, limits: Limits, wanted: Callable[[], Awaitable[Set[str]]]) -> None:
        """`wanted`: the trees that unfinished requests need; room is never made of those."""
        self._folder = private_folder(folder)
        self._chunks = Chunks(str(chunks))
        self._limits = limits
        self._wanted = wanted

    # --- manifests --------------------------------------------------------------------------------------------------

    def path(self, digest: str) -> Path:
        """Raises `HttpError` (400) for what is not a digest: it would be a path."""
        if not _DIGEST.fullmatch(digest):
            raise HttpError(400, "ValueError", f"not a sha256 digest: {digest[:80]!r}")
        return self._folder / digest

    def has(self, digest: str) -> bool:
        """Also marks it as used, so that the collector leaves it alone for a day."""
        path = self.path(digest)
        try:
            os.utime(path)
        except FileNotFoundError:
            return False
        return True

    async def put(self, digest: str, chunks: AsyncIterator[bytes]) -> bool:
        """Store a manifest; False when it was there.

        Raises `HttpError`: 422 for another digest or no manifest, 413 for a tree over the limit, 507 for a full disk.
        """
        path = self.path(digest)
        temporary = self._folder / f".upload-{secrets.token_hex(8)}"
        seen = hashlib.sha256()
        try:
            with temporary.open("xb") as file:
                async for part in _gathered(chunks):
                    if file.tell() + len(part) > tree.MAX_MANIFEST_BYTES:
                        raise HttpError(
                            413, "ValueError", f"a manifest has {tree.MAX_MANIFEST_BYTES >> 20} MiB at most"
                        )
                    seen.update(part)
                    await asyncio.to_thread(file.write, part)
                await asyncio.to_thread(_sync, file)
            if seen.hexdigest() != digest:
                raise HttpError(422, "ValueError", f"the upload is {seen.hexdigest()}, not {digest}")
            if await asyncio.to_thread(old_tars.is_tar, temporary):
                await asyncio.to_thread(self._take_tar, temporary)
            else:
                await asyncio.to_thread(self._check, temporary)
            existed = path.exists()
            boundary("server.blob.before")
            os.replace(temporary, path)
            boundary("server.blob.made")
            return not existed
        except OSError as error:
            raise _cannot_store(error) from error
        finally:
            temporary.unlink(missing_ok=True)

    def tree_of(self, digest: str) -> str:
        """The tree that an upload is: itself, or what a tar became. Raises `ValueError` when it is gone."""
        try:
            with self.path(digest).open("rb") as file:
                head = file.read(200)
        except FileNotFoundError:
            raise ValueError(f"tree {digest} is not here") from None
        return head[len(_BECAME) :].decode() if head.startswith(_BECAME) else digest

    def _take_tar(self, upload: Path) -> None:
        """Keep what is in it, and of itself only what it became. Raises as `put`."""
        try:
            raw = old_tars.manifest_of(upload, self._chunks)
        except ValueError as error:
            raise HttpError(422, "ValueError", str(error)) from error
        digest = hashlib.sha256(raw).hexdigest()
        manifest = upload.with_name(upload.name + ".tree")
        try:
            manifest.write_bytes(raw)
            self._check(manifest)
            os.replace(manifest, self.path(digest))
        finally:
            manifest.unlink(missing_ok=True)
        upload.write_bytes(_BECAME + digest.encode())

    def _check(self, manifest: Path) -> None:
        """Raises `HttpError`."""
        sizes: dict[bytes, int] = {}
        try:
            for entry in _files(manifest):
                for at, chunk in enumerate(tree.digests(entry.chunks)):
                    sizes[chunk] = min(tree.CHUNK_BYTES, entry.size - at * tree.CHUNK_BYTES)
        except (ValueError, tree.UnsafePath) as error:
            raise HttpError(422, "ValueError", str(error)) from error
        size, limit = sum(sizes.values()), self._limits.tree_bytes
        if size > limit:
            raise HttpError(
                413,
                "ValueError",
                f"these files have {size / _GB:.1f} GB, and this server takes {limit / _GB:.1f} GB at a time",
                "leave out what the task does not need with a .skyignore, or start the server with "
                "SKYINFRA_UPLOAD_LIMIT_GB set higher",
            )
        need = sum(sizes[chunk] for chunk in self._chunks.missing(sizes))
        free = shutil.disk_usage(self._folder).free - self._limits.reserve_bytes
        if need > free:
            raise HttpError(
                507,
                "OSError",
                f"these files need {need / _GB:.1f} GB of the server's disk, which has {max(free, 0) / _GB:.1f} GB",
                f"make room on the file system of {self._folder}, or leave files out with a .skyignore",
            )

    # --- chunks -----------------------------------------------------------------------------------------------------

    def missing(self, digest: str) -> list[str] | None:
        """The first chunks of a tree that must be sent, in the order of the manifest; None without its manifest.
        Blocks: call it in a thread."""
        if not self.has(digest):
            return None
        found: dict[bytes, None] = {}
        for batch in tree.batches(_files(self.path(digest))):
            found.update(dict.fromkeys(self._chunks.missing(d for e in batch for d in tree.digests(e.chunks))))
            if len(found) >= MISSING_AT_ONCE:
                break
        return [chunk.hex() for chunk in found]

    async def put_pack(self, parts: AsyncIterator[bytes], size: int) -> None:
        """Store chunks (`runtime/chunks.py`). Whole ones are kept also when the connection breaks.

        Raises `HttpError`: 422 for what is no pack, 507 when there is no room. A body that is refused is read to its
        end: the client gets the answer rather than a broken connection.
        """
        refused = await self._make_room(size)
        pack = self._chunks.receive()
        try:
            async for part in _gathered(parts):
                if refused is None:
                    try:
                        await asyncio.to_thread(pack.write, part)
                    except BadPack as error:
                        refused = HttpError(422, "ValueError", str(error))
                    except OSError as error:
                        refused = _cannot_store(error)
        finally:
            whole = await asyncio.to_thread(pack.close)
        if refused is not None:
            raise refused
        if not whole:
            raise HttpError(422, "ValueError", "the pack ends in the middle of a chunk")

    def packs(self, digests: Iterable[str]) -> list[tuple[AsyncIterator[bytes], int]]:
        """These chunks as packs, with their sizes. Blocks: call it in a thread. Raises `MissingChunk`."""
        wanted = [bytes.fromhex(digest) for digest in digests]
        places = self._chunks.locate(wanted)
        groups: list[list[tuple[bytes, Place]]] = [[]]
        size = 0
        for digest in wanted:
            if digest not in places:
                raise MissingChunk(digest.hex())
            if size >= PACK_BYTES:
                groups.append([])
                size = 0
            groups[-1].append((digest, places[digest]))
            size += places[digest].size
        return [(self._pack(group), sum(HEAD_BYTES + p.size for _, p in group)) for group in groups if group]

    async def _pack(self, group: list[tuple[bytes, Place]]) -> AsyncIterator[bytes]:
        part: list[tuple[bytes, Place]] = []
        for digest, place in group:
            part.append((digest, place))
            if sum(p.size for _, p in part) >= PART or len(part) >= 256:
                yield await asyncio.to_thread(self._read, part)
                part = []
        yield await asyncio.to_thread(self._read, part)

    def _read(self, part: list[tuple[bytes, Place]]) -> bytes:
        return b"".join(head_of(digest, place.size) + self._chunks.read(digest, place) for digest, place in part)

    # --- limits -----------------------------------------------------------------------------------------------------

    async def _make_room(self, size: int) -> HttpError | None:
        limit = self._limits.store_bytes
        if await asyncio.to_thread(self._chunks.bytes_kept) + size <= limit:
            return None
        left = await asyncio.to_thread(self._shrink, await self._wanted(), limit - size, 0.0)
        if left + size <= limit:
            return None
        return HttpError(
            507,
            "OSError",
            f"the server keeps {left / _GB:.1f} GB of files that are in use, of {limit / _GB:.1f} GB",
            "try again when other launches are through, or start the server with SKYINFRA_UPLOAD_STORE_GB set higher",
        )

    def _shrink(self, wanted: Set[str], limit: int, unused_since: float) -> int:
        spared = {place.pack for digest in wanted for place in self._places(digest)}
        spared |= self._chunks.used_since(time.time() - MID_UPLOAD_S)
        return self._chunks.shrink(limit, unused_since, spared)

    def _places(self, digest: str) -> Iterable[Place]:
        try:
            chunks = [
                chunk for entry in _files(self.path(self.tree_of(digest))) for chunk in tree.digests(entry.chunks)
            ]
        except (OSError, ValueError, tree.UnsafePath):
            return []  # lost or damaged: the request that needs it says so
        return self._chunks.locate(chunks, touch=False).values()

    def collect(self, wanted: Set[str], keep_s: float, now: float | None = None) -> int:
        """Remove what is neither wanted nor fresh; returns how many manifests. Torn uploads go the same way."""
        limit = (time.time() if now is None else now) - keep_s
        wanted = wanted | {self.tree_of(digest) for digest in wanted if self.path(digest).exists()}
        removed = 0
        for path in self._folder.iterdir():
            if path.name not in wanted and path.stat().st_mtime < limit:
                path.unlink(missing_ok=True)
                removed += 1
        self._shrink(wanted, self._limits.store_bytes, limit)
        return removed


def _files(manifest: Path) -> Iterable[tree.Entry]:
    with manifest.open("rb") as file:
        yield from (entry for entry in tree.read(file) if entry.kind == "f")


def _cannot_store(error: OSError) -> HttpError:
    return HttpError(507, "OSError", f"the upload cannot be stored: {error.strerror}")


async def _gathered(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same bytes in parts of about `PART`: a thread is handed the disk's work, and not for each packet."""
    part = bytearray()
    async for chunk in chunks:
        part += chunk
        if len(part) >= PART:
            yield bytes(part)
            part.clear()
    yield bytes(part)


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
