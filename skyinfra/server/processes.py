"""Which processes belong to a state folder. Reads `/proc`, ends nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from skyinfra.runtime.identity import Identity

__all__ = ["belonging_to", "describe"]


def belonging_to(home: Path) -> Iterator[tuple[Identity, str, dict[str, str]]]:
    """Living processes that were started for a state folder: identity, command line, SKYINFRA_* environment."""
    marker = f"SKYINFRA_HOME={home}"
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            lines = Path(f"/proc/{entry}/environ").read_bytes().decode(errors="replace").split("\0")
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        if marker not in lines:
            continue
        identity = Identity.of(int(entry))
        if identity is not None and identity.alive:
            ours = dict(line.split("=", 1) for line in lines if line.startswith("SKYINFRA_") and "=" in line)
            yield identity, describe(int(entry)), ours


def describe(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return ""
