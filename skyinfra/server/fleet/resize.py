"""``launch --resize``: the node of an idle cluster grows or shrinks in place, within what its host has.

CPUs and memory only: other accelerators, or another number of nodes, would be another cluster.
"""

from __future__ import annotations

import asyncio
from typing import Any

from skyinfra.model.exceptions import (
    NotSupportedError,
    ResourcesMismatchError,
    ResourcesUnavailableError,
    with_hint,
)
from skyinfra.model.states import ClusterStatus
from skyinfra.server.fleet.clouds import Clouds
from skyinfra.server.fleet.clusters import Clusters
from skyinfra.server.fleet.demand import Demand
from skyinfra.server.fleet.ending import Ending
from skyinfra.server.fleet.ports import AgentError, Unreachable
from skyinfra.server.requests.steps import StepContext

__all__ = ["Resize"]

ASK_S = 5.0


class Resize:
    def __init__(self, clusters: Clusters, ending: Ending, clouds: Clouds) -> None:
        self._clusters = clusters
        self._ending = ending
        self._clouds = clouds

    async def check(self, cluster: Any, demand: Demand) -> None:
        """Before anything is touched. Raises `ResourcesMismatchError`, `ResourcesUnavailableError`,
        `NotSupportedError` (unfinished jobs)."""
        await self.size(cluster, demand)
        await self._refuse_busy(cluster)

    async def prepare(self, ctx: StepContext, cluster_id: str, demand: Demand) -> dict[str, Any]:
        """No job comes in between; what the slot becomes. Idempotent. Raises as `check`."""
        cluster = await self._clusters.by_id(cluster_id)
        assert cluster is not None, "the lane is ours, so the row cannot have gone"
        size = await self.size(cluster, demand)
        await self._ending.drain(ctx, cluster)
        try:
            await self._refuse_busy(cluster)
        except NotSupportedError:
            await self._ending.undrain(cluster)
            raise
        shown = {**cluster.resources, "cpus": f"{size['cpus']:g}", "memory": f"{size['memory_gb']:g}"}
        await self._clusters.change(cluster_id, resources=shown)
        ctx.say(f"Resizing {cluster.name} to {size['cpus']:g} CPUs and {size['memory_gb']:g} GB of memory")
        return size

    async def done(self, cluster_id: str) -> None:
        """Jobs are accepted again."""
        await self._ending.undrain(await self._clusters.by_id(cluster_id))

    async def size(self, cluster: Any, demand: Demand) -> dict[str, Any]:
        """What the slot would become. Raises `ResourcesMismatchError`, `ResourcesUnavailableError`."""
        slot, wish = cluster.spec["slots"][0], demand.wishes[0]
        if cluster.spec["cloud"] != "local":
            raise NotSupportedError(
                f"--resize: machines on {cluster.spec['cloud']} keep their size; make another cluster"
            )
        if demand.num_nodes != len(cluster.spec["slots"]):
            raise ResourcesMismatchError(
                f"--resize: cluster '{cluster.name}' has {len(cluster.spec['slots'])} node(s), "
                f"the task asks for {demand.num_nodes}; only the size of a node can change yet"
            )
        if wish.accelerator is not None and (slot["gpus"] or (None, 0)) != list(wish.accelerator):
            raise ResourcesMismatchError(
                f"--resize: the accelerators of cluster '{cluster.name}' cannot change; make another cluster"
            )
        size = {
            "cpus": slot["cpus"] if wish.cpus is None else wish.cpus,
            "memory_gb": slot["memory_gb"] if wish.memory_gb is None else wish.memory_gb,
        }
        machines = await asyncio.to_thread(self._clouds["local"].machines) or ()
        cpus = max((one.vcpus or 0.0 for one in machines), default=0.0)
        memory_gb = max((one.memory_gib or 0.0 for one in machines), default=0.0)
        on_each = "" if demand.num_nodes == 1 else f" on each of {demand.num_nodes} nodes"
        if size["cpus"] > cpus or size["memory_gb"] > memory_gb:
            raise ResourcesUnavailableError(
                f"--resize: {size['cpus']:g} CPUs and {size['memory_gb']:g} GB of memory asked{on_each}, "
                f"this host has {cpus:g} and {memory_gb:g}"
            )
        return size

    async def _refuse_busy(self, cluster: Any) -> None:
        if cluster.status != ClusterStatus.UP.name:
            return  # nothing runs, or nothing is known: the operation will say
        try:
            busy = await asyncio.wait_for(self._ending.unfinished(cluster), ASK_S)
        except (Unreachable, AgentError, TimeoutError):
            return  # likewise
        if busy:
            jobs = ", ".join(map(str, busy))
            raise with_hint(
                NotSupportedError(f"--resize needs an idle cluster; unfinished on '{cluster.name}': job {jobs}"),
                f"wait, or `skyinfra cancel {cluster.name} -a`",
            )
