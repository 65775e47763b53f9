"""Which machine of a pool serves a demand, and what to say when none is free. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from skyinfra.model.accelerators import canonical_accelerator
from skyinfra.stacks.clouds.ssh.hosts import Seen

__all__ = ["Demand", "accelerator_of", "fitting", "misfit", "shortage"]

#: What the firmware keeps of the memory that is printed on the box.
MEMORY_SLACK = 0.93


@dataclass(frozen=True)
class Demand:
    cpus: float = 0.0
    memory_gb: float = 0.0
    gpus: tuple[str, int] | None = None


def accelerator_of(facts: dict[str, Any]) -> tuple[str, int] | None:
    """The name users write and how many there are: ``NVIDIA H100 80GB HBM3`` twice is ``("H100", 2)``."""
    gpus = facts["gpus"]
    if not gpus:
        return None
    dropped = ("NVIDIA", "Tesla", "GeForce", "RTX")
    words = [word for word in gpus[0]["name"].replace("-", " ").split() if word not in dropped]
    return canonical_accelerator(words[0] if words else gpus[0]["name"]), len(gpus)


def misfit(facts: dict[str, Any], demand: Demand) -> str:
    """What this machine lacks, in words; "" when it will do."""
    if demand.gpus is not None:
        name, count = demand.gpus
        has = accelerator_of(facts)
        if has is None or has[0].lower() != name.lower() or has[1] < count:
            return f"has {f'{has[0]}:{has[1]}' if has else 'no GPUs'}, not {name}:{count}"
    if facts["cpus"] < demand.cpus:
        return f"has {facts['cpus']:g} CPUs, not {demand.cpus:g}"
    if facts["memory_gb"] < demand.memory_gb * MEMORY_SLACK:
        return f"has {facts['memory_gb']:g} GB of memory, not {demand.memory_gb:g}"
    return ""


def fitting(seen: Iterable[Seen], demand: Demand) -> list[Seen]:
    """The free ones that will do, those first that waste least: GPUs weigh more than CPUs, those more than memory."""
    free = [one for one in seen if one.facts is not None and one.lease is None and not misfit(one.facts, demand)]

    def waste(one: Seen) -> tuple[float, ...]:
        facts = one.facts or {}
        return (len(facts["gpus"]), facts["cpus"], facts["memory_gb"])

    return sorted(free, key=waste)  # stable: else the file's order


def shortage(pool: str, seen: Sequence[Seen], demand: Demand) -> str:
    """Why nothing in the pool serves the demand: what each host lacks, who holds it, or why it is silent."""
    reasons = []
    for one in seen:
        if one.facts is None:
            reasons.append(one.problem)
        elif lacks := misfit(one.facts, demand):
            reasons.append(f"{one.place.host} {lacks}")
        elif one.lease is not None:
            reasons.append(f"{one.place.host} is held by {holder(one.lease)}")
        else:
            reasons.append(f"{one.place.host} was just taken")
    return f"no machine of pool {pool} is free for this: {'; '.join(reasons) or 'it has no hosts'}"


def holder(lease: dict[str, Any]) -> str:
    """Who has a lease, for people."""
    name = lease.get("name") or lease["cluster"]
    whose = f" of {lease['owner']}" if lease.get("owner") else ""
    return f"cluster {name}{whose} (server {lease['server'] or 'unknown'})"
