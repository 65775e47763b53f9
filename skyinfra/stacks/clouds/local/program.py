"""The local cloud's part of the program: one ``skyinfra:local:Machine`` per slot."""

from __future__ import annotations

import pulumi

from skyinfra.model.spec import ClusterSpec, Slot

__all__ = ["Machine", "declare_machine"]


class Machine(pulumi.CustomResource):
    """``skyinfra:local:Machine``."""

    internal_ip: pulumi.Output[str]
    external_ip: pulumi.Output[str]
    facts: pulumi.Output[dict]

    def __init__(self, name: str, inputs: dict, opts: pulumi.ResourceOptions) -> None:
        super().__init__(
            "skyinfra:local:Machine", name, {**inputs, "internal_ip": None, "external_ip": None, "facts": None}, opts
        )


def declare_machine(name: str, spec: ClusterSpec, slot: Slot, opts: pulumi.ResourceOptions) -> Machine:
    """Tags are inputs: what is made carries them before anything else happens."""
    inputs = {
        "cluster": spec.stack,
        "server": spec.server,
        "workspace": spec.workspace,
        "slot": slot.slot,
        "incarnation": slot.incarnation,
        "cpus": slot.cpus,
        "memory_gb": slot.memory_gb,
        "gpus": list(slot.gpus) if slot.gpus else None,
        "image": slot.image,
        "spot": slot.spot,
        "power": spec.power,
    }
    return Machine(name, inputs, opts)
