"""The ssh cloud's part of the program: one ``skyinfra:ssh:Machine`` per slot."""

from __future__ import annotations

import pulumi

from skyinfra.model.spec import ClusterSpec, Slot

__all__ = ["Machine", "declare_machine"]


class Machine(pulumi.CustomResource):
    """``skyinfra:ssh:Machine``: a lease."""

    internal_ip: pulumi.Output[str]
    external_ip: pulumi.Output[str]
    facts: pulumi.Output[dict]
    pool: pulumi.Output[str]
    host: pulumi.Output[str]

    def __init__(self, name: str, inputs: dict, opts: pulumi.ResourceOptions) -> None:
        outputs = dict.fromkeys(("internal_ip", "external_ip", "facts", "host"))
        super().__init__("skyinfra:ssh:Machine", name, {**inputs, **outputs}, opts)


def declare_machine(name: str, spec: ClusterSpec, slot: Slot, opts: pulumi.ResourceOptions) -> Machine:
    """Tags are inputs: the lease carries them."""
    inputs = {
        "cluster": spec.stack,
        "name": spec.name,
        "server": spec.server,
        "workspace": spec.workspace,
        "pool": spec.region,
        "slot": slot.slot,
        "incarnation": slot.incarnation,
        "cpus": slot.cpus,
        "memory_gb": slot.memory_gb,
        "gpus": list(slot.gpus) if slot.gpus else None,
        "image": slot.image,
        "power": spec.power,
    }
    return Machine(name, inputs, opts)
