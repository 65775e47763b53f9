"""A file tree as data: its manifest, one line per entry, and the chunks that the files' contents are cut into.

The first line is ``{"tree": 1}``, each other one a JSON array, parents before what is in them:

- ``["d", name, mode]``: a folder
- ``["l", name, target]``: a symbolic link, as it is, wherever it points
- ``["f", name, mode, mtime in ns, size in bytes, chunks]``: a file; chunks are sha256 digests in hex, one after the
  other, of `CHUNK_BYTES` of content each (the last one less)

Names are relative, with ``/``; bytes that are no UTF-8 are lone surrogates (``os.fsdecode``). The manifest's sha256
names the tree. A tree of kind ``file`` is a manifest with one file. Read line by line: a big tree is never in memory.

Standard library only, Python >= 3.8: client, server and agent read the same manifest by this code.
"""

import itertools
import json
import os
from typing import IO, Any, Iterable, Iterator, List, NamedTuple, Optional, Set

VERSION = 1
CHUNK_BYTES = 4 << 20
DIGEST_BYTES = 32
#: More than anyone's code has; a tree of more files is rather a data set (a bucket) or a missing `.skyignore`.
MAX_ENTRIES = 500000
MAX_MANIFEST_BYTES = 512 << 20
#: What a file is called while it arrives; no tree has a file of that name.
ARRIVING = ".skyinfra-arriving"
_MAX_LINE = 64 << 20


class UnsafePath(Exception):
    """Something in the tree, or its destination, would be written outside its place."""


class Entry(NamedTuple):
    kind: str
    """``d``, ``l`` or ``f``."""
    name: str
    mode: int = 0
    mtime_ns: int = 0
    size: int = 0
    chunks: bytes = b""
    """Digests, `DIGEST_BYTES` each."""
    target: str = ""


def header() -> bytes:
    return json.dumps({"tree": VERSION}).encode() + b"\n"


def line_of(entry: Entry) -> bytes:
    """The manifest's line; equal entries have equal lines."""
    value: List[Any] = [entry.kind, entry.name]
    if entry.kind == "d":
        value += [entry.mode]
    elif entry.kind == "l":
        value += [entry.target]
    else:
        value += [entry.mode, entry.mtime_ns, entry.size, entry.chunks.hex()]
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def digests(chunks: bytes) -> List[bytes]:
    return [chunks[i : i + DIGEST_BYTES] for i in range(0, len(chunks), DIGEST_BYTES)]


def read(manifest: IO[bytes]) -> Iterator[Entry]:
    """Every entry, checked. Raises `ValueError` for what is no manifest and `UnsafePath` for an entry that has no place
    in a tree: a name that leaves it or goes through one of its links."""
    folders: Set[str] = {""}
    links: Set[str] = set()
    _check_header(manifest.readline(1024))
    for number in itertools.count(2):
        raw = manifest.readline(_MAX_LINE)
        if not raw:
            return
        if number > MAX_ENTRIES + 1:
            raise ValueError("the tree has more than {} entries".format(MAX_ENTRIES))
        entry = _parse(raw, number)
        _check_place(entry, folders, links)
        yield entry


def batches(entries: Iterable[Entry], size: int = 500) -> Iterator[List[Entry]]:
    """The same entries, some at a time."""
    source = iter(entries)
    while True:
        batch = list(itertools.islice(source, size))
        if not batch:
            return
        yield batch


def the_file(entries: Iterable[Entry]) -> Entry:
    """The one file of a tree of kind ``file``. Raises `ValueError`."""
    found = list(itertools.islice(entries, 2))
    if len(found) != 1 or found[0].kind != "f":
        raise ValueError("a tree of kind file holds one file and nothing else")
    return found[0]


def _check_header(raw: bytes) -> None:
    try:
        version = json.loads(raw)["tree"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError("this is not the manifest of a tree") from None
    if version != VERSION:
        raise ValueError("the tree is of version {}, known here is {}".format(version, VERSION))


def _parse(raw: bytes, number: int) -> Entry:
    try:
        entry = _entry(json.loads(raw.decode("ascii")))
    except (ValueError, TypeError, RecursionError):
        entry = None
    if entry is None:
        raise ValueError("line {} of the manifest is none: {!r}".format(number, raw[:80]))
    return entry


def _entry(value: Any) -> Optional[Entry]:
    """None, `ValueError` or `TypeError` for what is no entry."""
    kind, name, *rest = value
    if kind == "d":
        (mode,) = rest
        return Entry("d", name, mode=mode) if _is_text(name) and _is_mode(mode) else None
    if kind == "l":
        (target,) = rest
        return Entry("l", name, target=target) if _is_text(name) and _is_text(target) else None
    if kind != "f":
        return None
    mode, mtime_ns, size, chunks = rest
    entry = Entry("f", name, mode, mtime_ns, size, bytes.fromhex(chunks))
    counted = type(size) is int and size >= 0 and len(entry.chunks) == DIGEST_BYTES * -(-size // CHUNK_BYTES)
    return entry if counted and _is_text(name) and _is_mode(mode) and type(mtime_ns) is int else None


def _is_text(value: Any) -> bool:
    """A name that a file system can hold. Raises `UnicodeEncodeError` (a `ValueError`)."""
    return isinstance(value, str) and value != "" and b"\0" not in os.fsencode(value)


def _is_mode(value: Any) -> bool:
    return type(value) is int and 0 <= value <= 0o777


def _check_place(entry: Entry, folders: "Set[str]", links: "Set[str]") -> None:
    name = entry.name
    parts = name.split("/")
    if name.startswith("/") or ".." in parts:
        raise UnsafePath("{!r} lies outside the tree".format(name))
    if "" in parts or "." in parts or ARRIVING in parts:
        raise UnsafePath("{!r} is no name for a file of a tree".format(name))
    parent = name.rpartition("/")[0]
    if parent in links:
        raise UnsafePath("{!r} goes through the link {!r}".format(name, parent))
    if parent not in folders:
        raise UnsafePath("{!r} has no folder {!r} to lie in".format(name, parent))
    if name in (links if entry.kind == "d" else folders):
        raise UnsafePath("{!r} is there twice".format(name))
    if entry.kind == "d":
        folders.add(name)
    elif entry.kind == "l":
        links.add(name)
