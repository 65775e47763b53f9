"""Files written so that a crash leaves the old content or the new, never a part: temporary name, fsync, rename."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import Any

__all__ = ["make_private_dir", "read_json", "write_atomic", "write_json"]


def make_private_dir(path: Path) -> Path:
    """The folder, 0700, with its parents. Idempotent."""
    if not path.is_dir():
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.chmod(0o700)
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
