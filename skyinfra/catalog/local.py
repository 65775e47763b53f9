"""What the local cloud offers: this host, shared by its clusters. Pure: the host's figures come in as an argument.

CPUs and memory are offered to every cluster alike; GPUs are exclusive, so whether one is free is only known when a
machine is made.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["Candidate", "HostCapacity", "Wish", "candidates"]


@dataclass(frozen=True)
class HostCapacity:
    """What there is: `gpus` by accelerator name."""

    cpus: float
    memory_gb: float
    gpus: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Wish:
    """One node as one alternative of a task asks for it. None = as much as the cloud likes to give."""

    cpus: float | None = None
    memory_gb: float | None = None
    accelerator: tuple[str, float] | None = None
    disk_gb: int = 256
    spot: bool = False


@dataclass(frozen=True)
class Candidate:
    """A place where a cluster could be made."""

    cloud: str
    region: str
    instance_type: str
    cpus: float
    memory_gb: float
    gpus: tuple[str, int] | None
    disk_gb: int
    spot: bool
    price_per_hour: float = 0.0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Candidate:
        gpus = value.get("gpus")
        return cls(**{**value, "gpus": (gpus[0], gpus[1]) if gpus else None})


def candidates(wishes: list[Wish], host: HostCapacity) -> tuple[list[Candidate], list[str]]:
    """Places in the order of the wishes, and for each wish that cannot be met the reason, naming what there is."""
    found: list[Candidate] = []
    reasons: list[str] = []
    for wish in wishes:
        reason = _why_not(wish, host)
        if reason is not None:
            reasons.append(reason)
            continue
        gpus = None
        if wish.accelerator is not None:
            name, count = wish.accelerator
            gpus = (name, max(1, -int(-count // 1)))  # a fraction of a device still takes the device
        found.append(
            Candidate(
                cloud="local",
                region="local",
                instance_type="local",
                cpus=wish.cpus or host.cpus,
                memory_gb=wish.memory_gb or host.memory_gb,
                gpus=gpus,
                disk_gb=wish.disk_gb,
                spot=wish.spot,
            )
        )
    return found, reasons


def _why_not(wish: Wish, host: HostCapacity) -> str | None:
    if wish.cpus is not None and wish.cpus > host.cpus:
        return f"{wish.cpus:g} CPUs asked, this host has {host.cpus:g}"
    if wish.memory_gb is not None and wish.memory_gb > host.memory_gb:
        return f"{wish.memory_gb:g} GB of memory asked, this host has {host.memory_gb:g}"
    if wish.accelerator is not None:
        name, count = wish.accelerator
        there = host.gpus.get(name, 0)
        if count > there:
            have = ", ".join(f"{n}:{c}" for n, c in sorted(host.gpus.items())) or "no GPUs"
            return f"{name}:{count:g} asked, this host has {have}"
    return None
