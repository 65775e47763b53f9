"""File trees made by hand: manifests and packs, good ones and such as no client would send."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable

from skyinfra.runtime import tree
from skyinfra.runtime.chunks import HEAD_BYTES, head_of
from skyinfra.runtime.tree import CHUNK_BYTES, Entry

__all__ = ["chunks_in", "chunks_of", "digest_of", "file", "folder", "link", "manifest", "named_in", "pack"]


def chunks_of(content: bytes) -> list[bytes]:
    return [content[at : at + CHUNK_BYTES] for at in range(0, len(content), CHUNK_BYTES)]


def digest_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def file(name: str, content: bytes = b"x", mode: int = 0o644, mtime_ns: int = 10**18) -> Entry:
    """Its content is sent separately, as a `pack`."""
    chunks = b"".join(hashlib.sha256(chunk).digest() for chunk in chunks_of(content))
    return Entry("f", name, mode, mtime_ns, len(content), chunks)


def folder(name: str, mode: int = 0o755) -> Entry:
    return Entry("d", name, mode)


def link(name: str, target: str) -> Entry:
    return Entry("l", name, target=target)


def manifest(*entries: Entry) -> bytes:
    return tree.header() + b"".join(tree.line_of(entry) for entry in entries)


def pack(contents: Iterable[bytes]) -> bytes:
    """Whole contents, cut into chunks."""
    chunks = [chunk for content in contents for chunk in chunks_of(content)]
    return b"".join(head_of(hashlib.sha256(chunk).digest(), len(chunk)) + chunk for chunk in chunks)


def named_in(raw: bytes) -> list[str]:
    """The chunks that a manifest names, each once."""
    entries = tree.read(io.BytesIO(raw))
    return list(dict.fromkeys(chunk.hex() for entry in entries for chunk in tree.digests(entry.chunks)))


def chunks_in(raw: bytes) -> dict[str, bytes]:
    """The chunks in a pack, by digest, unchecked."""
    found = {}
    while raw:
        digest, size = raw[: tree.DIGEST_BYTES], int.from_bytes(raw[tree.DIGEST_BYTES : HEAD_BYTES], "big")
        found[digest.hex()] = raw[HEAD_BYTES : HEAD_BYTES + size]
        raw = raw[HEAD_BYTES + size :]
    return found
