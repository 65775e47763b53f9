"""A live catalog of machines that are simply there: this host, an ssh pool, the nodes of a context.

They are not sold by size, so a machine fits when it has *at least* what is asked, and the offer is cut to the ask:
a host with eight GPUs offers two of them to whoever asks for two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from skyinfra.catalog.ask import Ask
from skyinfra.catalog.matching import accelerator_fits, disk_fits
from skyinfra.catalog.offers import Offer
from skyinfra.catalog.table import Shape

__all__ = ["PoolCatalog"]


class PoolCatalog:
    """Machines of one cloud, each an `Offer`. Implements `LiveCatalog`."""

    def __init__(self, cloud: str, machines: Sequence[Offer]) -> None:
        self.cloud = cloud
        self._machines = tuple(machines)

    def inventory(self) -> Sequence[Offer]:
        """Every machine, whole."""
        return self._machines

    def offers(self, ask: Ask) -> Sequence[Offer]:
        """Machines that have at least what is asked. Spot means nothing here and never excludes one."""
        return [_cut(machine, ask) for machine in self._machines if _has(machine, ask)]


def _has(machine: Offer, ask: Ask) -> bool:
    if ask.instance_type is not None and ask.instance_type != machine.instance_type:
        return False
    for bound, has in ((ask.cpus, machine.vcpus), (ask.memory, machine.memory_gib)):
        # "4x" is how much memory to take per vCPU, which these machines do not come in; what is there is taken.
        if bound is not None and not bound.per_vcpu and (has is None or has < bound.value):
            return False
    if not disk_fits(Shape.of(machine), ask):
        return False
    if not ask.wants_accelerator:
        return True
    return accelerator_fits(Shape.of(machine), ask) and machine.accelerator_count >= ask.count


def _cut(machine: Offer, ask: Ask) -> Offer:
    """The part that is asked for; the price is the machine's own, and what costs nothing costs nothing as spot."""
    accelerator = machine.accelerator if ask.wants_accelerator else None
    return replace(
        machine,
        vcpus=machine.vcpus if ask.cpus is None else ask.cpus.value,
        memory_gib=machine.memory_gib if ask.memory is None or ask.memory.per_vcpu else ask.memory.value,
        accelerator=accelerator,
        accelerator_count=ask.count if accelerator else 0.0,
        accelerator_memory_gib=machine.accelerator_memory_gib if accelerator else None,
        spot_price=machine.price,
    )
