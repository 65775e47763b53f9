"""Records on disk: written whole or not at all, read without trusting them.

Owns the three ways the agent's processes leave facts for their successors: replace atomically, create exclusively,
read. Refuses to know what the records mean.
"""

import errno
import json
import os
import shutil
from _thread import get_ident
from typing import Any, Dict, Optional

#: The disk is full, or this user's share of it.
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def temporary(path: str) -> str:
    """A name beside `path` that no other process and no other thread of this one writes at the same time."""
    return "{}.{}.{}.tmp".format(path, os.getpid(), get_ident())


def write_file(path: str, data: bytes, mode: int = 0o600) -> None:
    """A new file that nobody else reads before it is complete. Raises `OSError`."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        write_all(fd, data)
    finally:
        os.close(fd)


def write_all(fd: int, data: "bytes | memoryview") -> None:
    """`os.write` until everything is written. Raises `OSError`."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def read_file(path: str) -> bytes:
    """All of it, without the memory that a buffered reader costs a supervisor. Raises `OSError`."""
    fd = os.open(path, os.O_RDONLY)
    try:
        pieces = [os.read(fd, os.fstat(fd).st_size + 1)]
        while pieces[-1]:
            pieces.append(os.read(fd, 65536))
        return b"".join(pieces)
    finally:
        os.close(fd)


def replace_json(path: str, value: Dict[str, Any], sync: bool = True) -> None:
    """Atomically replace `path` (temporary name, fsync, rename). Raises `OSError`."""
    tmp = temporary(path)
    fd = os.open(tmp, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        write_all(fd, json.dumps(value).encode())
        if sync:
            os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(tmp, path)


def claim_json(path: str, value: Dict[str, Any]) -> bool:
    """Create `path` with its whole content, only if it is not there yet: of several claimants exactly one gets True.

    A hard link, because O_EXCL would show a successor an empty file for a moment. Raises `OSError`.
    """
    tmp = temporary(path)
    write_file(tmp, json.dumps(value).encode())
    try:
        os.link(tmp, path)
        return True
    except FileExistsError:
        return False
    finally:
        os.unlink(tmp)


def read_json(path: str) -> Optional[Dict[str, Any]]:
    """The record, or None when it is missing or (after a power loss) not whole."""
    try:
        value = json.loads(read_file(path))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def remove_file(path: str) -> None:
    """Gone already is as good as removed."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def remove_tree(path: str) -> None:
    """A folder and what is in it; missing is fine. Raises `OSError` when something stays."""
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        pass


def private_folder(path: str) -> None:
    """Make `path` (and what leads to it) 0700. Raises `PermissionError` when it belongs to somebody else."""
    os.makedirs(path, mode=0o700, exist_ok=True)
    seen = os.stat(path)
    if seen.st_uid != os.getuid():
        raise PermissionError(errno.EPERM, "belongs to uid {}".format(seen.st_uid), path)
    if seen.st_mode & 0o077:
        os.chmod(path, 0o700)
