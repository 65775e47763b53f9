"""What a `Resources` asks of a catalog, as plain bounds: the one place that reads a `Resources` for this.

`asks_of` is total: anything the model accepts becomes asks, and an ask says everything that offers are filtered by.
The query layer, the optimizer and "why not" all work on asks, never on `Resources`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from skyinfra.model.accelerators import canonical_accelerator, parse_memory_form

__all__ = ["Ask", "Bound", "asks_of"]

_TOLERANCE = 1e-6


@dataclass(frozen=True, slots=True)
class Bound:
    """`4` (exactly) or `4+` (at least); `4x` for memory is GiB per vCPU, at least."""

    value: float
    at_least: bool = False
    per_vcpu: bool = False

    @classmethod
    def parse(cls, text: str | float | None) -> Bound | None:
        """None for None. Raises `ValueError` when it is not one of the three forms."""
        if text is None:
            return None
        words = str(text).strip()
        at_least = words.endswith("+")
        number = words.removesuffix("+")
        if number.endswith("x"):
            return cls(float(number[:-1]), at_least=True, per_vcpu=True)
        return cls(float(number.removesuffix("GB")), at_least)

    def allows(self, value: float | None, vcpus: float | None = None) -> bool:
        """Whether a quantity meets the bound; an unknown one never does."""
        if value is None:
            return False
        limit = self.value
        if self.per_vcpu:
            if vcpus is None:
                return False
            limit *= vcpus
        return value >= limit - _TOLERANCE if self.at_least else abs(value - limit) <= _TOLERANCE

    def __str__(self) -> str:
        return f"{self.value:g}{'x' if self.per_vcpu else '+' if self.at_least else ''}"


@dataclass(frozen=True, slots=True)
class Ask:
    """One wish without alternatives. None = anything will do."""

    cloud: str | None = None
    region: str | None = None
    zone: str | None = None
    instance_type: str | None = None
    cpus: Bound | None = None
    memory: Bound | None = None
    accelerator: str | None = None  #: a name, or None
    accelerator_memory: Bound | None = None  #: any accelerator with so much memory each
    accelerator_maker: str | None = None  #: only beside `accelerator_memory`
    count: float = 0  #: of accelerators; 0 = none asked for
    local_disk: Bound | None = None  #: GB of NVMe disks
    spot: bool = False
    max_hourly_cost: float | None = None  #: USD per hour of one node

    @property
    def wants_accelerator(self) -> bool:
        """Whether any accelerator is asked for."""
        return self.accelerator is not None or self.accelerator_memory is not None

    @property
    def what(self) -> str:
        """The wish in a few words: ``A100:8``, ``80GB+:2``, ``8+ vCPU``."""
        if self.accelerator is not None:
            return f"{self.accelerator}:{self.count:g}"
        if self.accelerator_memory is not None:
            maker = f"{self.accelerator_maker}:" if self.accelerator_maker else ""
            plus = "+" if self.accelerator_memory.at_least else ""
            return f"{maker}{self.accelerator_memory.value:g}GB{plus}:{self.count:g}"
        if self.instance_type is not None:
            return self.instance_type
        cpus = f"{self.cpus} vCPU" if self.cpus else None
        memory = None if self.memory is None or self.memory.per_vcpu else f"{self.memory} GiB"
        return ", ".join(words for words in (cpus, memory) if words) or "any machine"


def asks_of(resources: Any) -> Iterator[Ask]:
    """The asks of a `Resources`: one for each accelerator that it names (they are alternatives), else one."""
    cost = resources.max_hourly_cost
    common: dict[str, Any] = {
        "cloud": None if resources.cloud is None else resources.cloud.canonical_name(),
        "region": resources.region,
        "zone": resources.zone,
        "instance_type": resources.instance_type,
        "cpus": Bound.parse(resources.cpus),
        "memory": Bound.parse(resources.memory),
        "local_disk": _disk_bound(resources.local_disk),
        "spot": bool(resources.use_spot),
        "max_hourly_cost": None if cost is None else float(cost),
    }
    accelerators = resources.accelerators
    if not accelerators:
        yield Ask(**common)
        return
    for name, count in accelerators.items():
        form = parse_memory_form(name)
        if form is None:
            yield Ask(**common, accelerator=canonical_accelerator(name), count=float(count))
        else:
            maker, size_gb, or_more = form
            bound = Bound(size_gb, at_least=or_more)
            yield Ask(**common, accelerator_memory=bound, accelerator_maker=maker, count=float(count))


def _disk_bound(text: str | None) -> Bound | None:
    """`nvme:100+`: the kind is not told apart, as every machine's own disks are NVMe now, and that serves `ssd`."""
    return None if text is None else Bound.parse(text.rpartition(":")[2])
