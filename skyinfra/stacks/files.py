"""Files written so that a crash leaves the old content or the new, never a part: temporary name, fsync, rename."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import Any

__all__ = ["make_private_dir", "read_json", "write_atomic", "write_json"]


def make_private_dir(path: Path) -> Path:
    """The folder, 0700, and those of its parents that were missing. Idempotent.

    Raises `PermissionError` when it, or what holds it, belongs to another user: who owns a folder under ``/tmp`` could
    put another in its place.
    """
    if not path.is_dir():
        if not path.parent.is_dir():
            make_private_dir(path.parent)
        try:
            path.mkdir(mode=0o700)
        except FileExistsError:
            pass  # another process was first
    for owned in (path, path.parent):
        if owned.stat().st_uid not in (os.getuid(), 0):
            raise PermissionError(f"{owned} belongs to another user")
    return path


def write_atomic(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Replace `path` by `data`. Raises `OSError` (a full disk, say); then the old file is untouched."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any, mode: int = 0o600) -> None:
    """`write_atomic` of a JSON value."""
    write_atomic(path, json.dumps(value, sort_keys=True).encode() + b"\n", mode)


def read_json(path: Path) -> Any | None:
    """The value, or None when there is no such file. Raises `ValueError` when it is not JSON."""
    try:
        return json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
