"""Uploaded trees, kept by digest until a day after nobody needs them. Streamed to disk, never in memory whole."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import secrets
import time
from collections.abc import AsyncIterator, Set
from pathlib import Path
from typing import BinaryIO

from skyinfra.runtime.boundary import boundary
from skyinfra.server.answers import HttpError
from skyinfra.server.vault import private_folder

__all__ = ["Blobs"]

PART = 1 << 20
_DIGEST = re.compile(r"[0-9a-f]{64}")


class Blobs:
    def __init__(self, folder: Path) -> None:
        self._folder = private_folder(folder)

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
        """Store what arrives; False when it was there. Raises `HttpError`: 422 for another digest, 507, disk full."""
        path = self.path(digest)
        temporary = self._folder / f".upload-{secrets.token_hex(8)}"
        seen = hashlib.sha256()
        try:
            with temporary.open("xb") as file:
                async for part in _gathered(chunks):
                    seen.update(part)
                    await asyncio.to_thread(file.write, part)
                await asyncio.to_thread(_sync, file)
            if seen.hexdigest() != digest:
                raise HttpError(422, "ValueError", f"the upload is {seen.hexdigest()}, not {digest}")
            existed = path.exists()
            boundary("server.blob.before")
            os.replace(temporary, path)
            boundary("server.blob.made")
            return not existed
        except OSError as error:
            raise HttpError(507, "OSError", f"the upload cannot be stored: {error.strerror}") from error
        finally:
            temporary.unlink(missing_ok=True)

    def collect(self, wanted: Set[str], keep_s: float, now: float | None = None) -> int:
        """Remove what is neither wanted nor fresh; returns how many. Torn uploads go the same way."""
        limit = (time.time() if now is None else now) - keep_s
        removed = 0
        for path in self._folder.iterdir():
            if path.name not in wanted and path.stat().st_mtime < limit:
                path.unlink(missing_ok=True)
                removed += 1
        return removed


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
