"""Which process this is: pid, start ticks, boot id. Never another one that was given the number later.

The record that every long-lived process leaves on disk, shared by the agent, the worker's side and the server.
Standard library, Python >= 3.8.
"""

import os
from dataclasses import asdict, dataclass
from typing import Any, Dict, Optional

from skyinfra.runtime import procs

__all__ = ["Identity"]


@dataclass(frozen=True)
class Identity:
    """One process."""

    pid: int
    start_ticks: int
    boot_id: str

    @classmethod
    def of(cls, pid: int) -> "Optional[Identity]":
        """The process that has this number now, a zombie included, or None."""
        seen = procs.read_stat(pid)
        return None if seen is None else cls(pid, seen.start_ticks, procs.boot_id())

    @classmethod
    def own(cls) -> "Identity":
        """This process."""
        mine = cls.of(os.getpid())
        assert mine is not None, "/proc does not know this process"
        return mine

    @classmethod
    def from_json(cls, value: Dict[str, Any]) -> "Optional[Identity]":
        """None when the record is incomplete (an old or torn file)."""
        try:
            return cls(int(value["pid"]), int(value["start_ticks"]), str(value["boot_id"]))
        except (KeyError, TypeError, ValueError):
            return None

    def to_json(self) -> Dict[str, Any]:
        return asdict(self)

    @property
    def alive(self) -> bool:
        """Whether exactly this process runs; a zombie does not."""
        return self.boot_id == procs.boot_id() and procs.alive(self.pid, self.start_ticks)
