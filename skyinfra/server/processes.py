"""Who a process is (pid, start ticks, boot id) and which belong to a state folder. Reads `/proc`, ends nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

__all__ = ["Identity", "belonging_to", "boot_id", "describe"]


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@dataclass(frozen=True)
class Identity:
    """One process, never another that was given its number later."""

    pid: int
    start_ticks: int
    boot_id: str

    @classmethod
    def of(cls, pid: int) -> Identity | None:
        fields = _stat(pid)
        return None if fields is None or fields[0] in "ZX" else cls(pid, int(fields[19]), boot_id())

    @classmethod
    def own(cls) -> Identity:
        mine = cls.of(os.getpid())
        assert mine is not None, "/proc does not know this process"
        return mine

    @property
    def alive(self) -> bool:
        return Identity.of(self.pid) == self

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def _stat(pid: int) -> list[str] | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    return text[text.rindex(")") + 2 :].split()


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
        if identity is not None:
            ours = dict(line.split("=", 1) for line in lines if line.startswith("SKYINFRA_") and "=" in line)
            yield identity, describe(int(entry)), ours


def describe(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return ""
