"""Trees of clients that send one tar (0.1.0 before its release): made manifests and chunks as they arrive.

To be removed with the last recorded version (`tests/fixtures/previous`) whose client does so.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterator
from pathlib import Path

from skyinfra.runtime import tree
from skyinfra.runtime.chunks import Chunks, PackWriter, head_of

__all__ = ["is_tar", "manifest_of"]


def is_tar(path: Path) -> bool:
    with path.open("rb") as file:
        return not file.read(8).startswith(b'{"tree"') and tarfile.is_tarfile(path)


def manifest_of(path: Path, chunks: Chunks) -> bytes:
    """The manifest of what is in the tar, whose content is put into `chunks`. Raises `ValueError`, `OSError`."""
    pack = chunks.receive()
    try:
        with tarfile.open(path, mode="r:") as tar:
            lines = [tree.line_of(_entry(tar, member, pack)) for member in tar]
    except tarfile.TarError as error:
        raise ValueError(f"the upload is a damaged tar: {error}") from error
    finally:
        pack.close()
    return tree.header() + b"".join(lines)


def _entry(tar: tarfile.TarFile, member: tarfile.TarInfo, pack: PackWriter) -> tree.Entry:
    mode = member.mode & 0o777
    if member.isdir():
        return tree.Entry("d", member.name, mode)
    if member.issym():
        return tree.Entry("l", member.name, target=member.linkname)
    if not member.isreg():
        raise ValueError(f"{member.name!r} is neither file, folder nor link")
    digests = b"".join(_kept(tar, member, pack))
    return tree.Entry("f", member.name, mode, int(member.mtime) * 1_000_000_000, member.size, digests)


def _kept(tar: tarfile.TarFile, member: tarfile.TarInfo, pack: PackWriter) -> Iterator[bytes]:
    content = tar.extractfile(member)
    assert content is not None  # a regular file
    while data := content.read(tree.CHUNK_BYTES):
        digest = hashlib.sha256(data).digest()
        pack.write(head_of(digest, len(data)) + data)
        yield digest
