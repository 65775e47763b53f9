"""The cluster as a Pulumi program: a pure function of its `ClusterSpec`.

`Cluster` is an ordinary component, usable inside anyone's program; `main` is ours: that component from the stack's
config key ``skyinfra:cluster``, and the export ``nodes``. No clock, no environment, no raw thread in here: equal specs
must plan equal resources. Each cloud's machines are declared by ``clouds/<name>/program.py``.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pulumi

from skyinfra.model.spec import ClusterSpec, Slot
from skyinfra.stacks.workspace import PROVIDER_VERSION

__all__ = ["AGENT_TYPE", "CLUSTER_TYPE", "Cluster", "ClusterArgs", "main"]

CLUSTER_TYPE = "skyinfra:index:Cluster"
AGENT_TYPE = "skyinfra:index:Agent"


@dataclass(frozen=True)
class ClusterArgs:
    """What a cluster should be."""

    spec: ClusterSpec


class Agent(pulumi.CustomResource):
    """``skyinfra:index:Agent``."""

    channel: pulumi.Output[dict]
    ready_at: pulumi.Output[float]

    def __init__(self, name: str, inputs: dict[str, Any], opts: pulumi.ResourceOptions) -> None:
        super().__init__(AGENT_TYPE, name, {**inputs, "channel": None, "ready_at": None}, opts)


class Cluster(pulumi.ComponentResource):
    """Machines and their agents. `nodes`: `{slot, id, internal_ip, external_ip, channel, incarnation}`, head first."""

    nodes: pulumi.Output[list[dict[str, Any]]]

    def __init__(self, name: str, args: ClusterArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(CLUSTER_TYPE, name, {}, opts)
        slots = sorted(args.spec.slots, key=lambda slot: slot.slot)
        declare_machine = self._machines(name, args.spec)
        self.nodes = pulumi.Output.all(*[self._node(name, args.spec, slot, declare_machine) for slot in slots])
        self.register_outputs({"nodes": self.nodes})

    def _machines(self, name: str, spec: ClusterSpec) -> Callable[[Slot], Any]:
        """Declares a slot's machine. Some clouds first declare what all machines of the cluster share."""
        cloud = importlib.import_module(f"skyinfra.stacks.clouds.{spec.cloud}.program")
        ours = pulumi.ResourceOptions(parent=self, version=PROVIDER_VERSION)
        declare_shared = getattr(cloud, "declare_shared", None)
        shared = [] if declare_shared is None else [declare_shared(name, spec, ours)]
        return lambda slot: cloud.declare_machine(f"{name}-{slot.slot}", spec, slot, ours, *shared)

    def _node(self, name: str, spec: ClusterSpec, slot: Slot, declare_machine: Callable[[Slot], Any]) -> dict[str, Any]:
        machine = declare_machine(slot)
        channel: Any = None
        # A stopped machine runs no agent; a start declares it again, with the next boot. No version: machines alone.
        if spec.power == "running" and spec.agent_version:
            channel = self._agent(f"{name}-{slot.slot}", spec, slot, machine).channel
        return {
            "slot": slot.slot,
            "incarnation": slot.incarnation,
            "id": machine.id,
            "internal_ip": machine.internal_ip,
            "external_ip": machine.external_ip,
            "channel": channel,
        }

    def _agent(self, name: str, spec: ClusterSpec, slot: Slot, machine: pulumi.CustomResource) -> Agent:
        inputs = {
            "cloud": spec.cloud,
            "machine_id": machine.id,
            "slot": slot.slot,
            "version": spec.agent_version,
            "boot": spec.boot,
            "generation": slot.agent_generation,
        }
        opts = pulumi.ResourceOptions(parent=self, version=PROVIDER_VERSION, deleted_with=machine, depends_on=[machine])
        return Agent(name, inputs, opts)


def main() -> None:
    """The stack's program. Raises `ValueError` for a spec newer than this code."""
    spec = ClusterSpec.from_json(json.loads(pulumi.Config("skyinfra").require("cluster")))
    pulumi.export("nodes", Cluster(spec.stack, ClusterArgs(spec)).nodes)
