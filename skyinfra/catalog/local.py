"""What one node is asked to be and where it is made, as the fleet stores both: values, no questions answered.

What a host can offer is a `PoolCatalog`'s to say. CPUs and memory are offered to every cluster alike; GPUs are
exclusive, so whether one is free is only known when a machine is made.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Candidate", "Wish"]


@dataclass(frozen=True)
class Wish:
    """One node as one alternative of a task asks for it. None = as much as the cloud likes to give."""

    cpus: float | None = None
    memory_gb: float | None = None
    accelerator: tuple[str, float] | None = None
    disk_gb: int = 256
    spot: bool = False
    cloud: str | None = None


@dataclass(frozen=True)
class Candidate:
    """Where a cluster could be made: one node, as it is stored with an attempt."""

    cloud: str
    region: str
    instance_type: str
    cpus: float
    memory_gb: float
    gpus: tuple[str, int] | None
    disk_gb: int
    spot: bool
    price_per_hour: float = 0.0
    zone: str | None = None
    """None: any of the region."""

    @property
    def where(self) -> str:
        """``aws/us-east-1/us-east-1a``; of a cloud that is one place, its name."""
        parts = [self.cloud, self.region if self.region != self.cloud else "", self.zone]
        return "/".join(part for part in parts if part)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Candidate:
        gpus = value.get("gpus")
        return cls(**{**value, "gpus": (gpus[0], gpus[1]) if gpus else None})
