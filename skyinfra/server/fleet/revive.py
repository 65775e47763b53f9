"""``revive``, an internal request: an agent that died is brought back by raising its generation, in one `up`.

If its machine is found to be stopped, that is written into the declaration instead: the cluster is STOPPED.
At most `REVIVALS` times per node in `WINDOW_S`; then the node is CORDONED(agent) and the cluster is shown as unhealthy
until a launch brings it up again. A worker whose machine is gone, or cannot be reached, stays LOST: the cluster is UP,
its other nodes serve, and the next launch replaces that one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from skyinfra.model.spec import ClusterSpec
from skyinfra.model.states import ClusterStatus
from skyinfra.server.fleet.clusters import Clusters
from skyinfra.server.fleet.operate import Operator
from skyinfra.server.fleet.outcomes import error_of
from skyinfra.server.fleet.ports import AgentError, Unreachable
from skyinfra.server.fleet.power import Power
from skyinfra.server.fleet.provision import Provision
from skyinfra.server.fleet.reach import HEAD, Reach
from skyinfra.server.requests.steps import Handler, Step, StepContext, in_order
from skyinfra.stacks.operation import OperationResult

__all__ = ["REVIVALS", "WINDOW_S", "Revive"]

REVIVALS = 3
WINDOW_S = 600.0
CONFIGURE_S = 5.0
INIT, UP = ClusterStatus.INIT.name, ClusterStatus.UP.name


class Revive:
    def __init__(
        self, clusters: Clusters, reach: Reach, operator: Operator, provision: Provision, power: Power
    ) -> None:
        self._clusters = clusters
        self._reach = reach
        self._operator = operator
        self._provision = provision
        self._power = power

    def handler(self) -> Handler:
        steps = in_order(Step("raise", self._raise), Step("up", self._up))

        def plan(prior: Mapping[str, Any]) -> Step | None:
            return None if prior.get("raise", {"raised": True}).get("raised") is not True else steps(prior)

        return Handler("revive", plan, lane=True, on_cancel=self._on_cancel)

    async def _raise(self, ctx: StepContext, prior: Mapping[str, Any]) -> Any:
        cluster = await self._clusters.find(ctx.workspace, ctx.cluster_name)
        if cluster is None or cluster.status != UP or not (silent := await self._provision.silent(cluster)):
            return {"raised": False}  # whoever had the lane before us has seen to it
        if await self._power.seen_off(cluster):
            ctx.say(f"Cluster {ctx.cluster_name} was stopped from outside")
            await self._power.off(ctx, cluster, "found stopped")
            return {"raised": False, "stopped": True}
        gone = await self._power.gone(cluster) - {HEAD}
        slots = [slot for slot in silent if slot not in gone]
        if not slots:
            return {"raised": False, "gone": sorted(gone)}
        # one of the future was noted before the time of day was set back: who knows when
        recent = [at for at in map(_slot_and_time, cluster.revivals) if 0 <= ctx.now() - at[1] < WINDOW_S]
        given_up = [slot for slot in slots if sum(one[0] == slot for one in recent) >= REVIVALS]
        if given_up:
            await self._cordon(ctx, cluster, given_up)
            return {"raised": False, "cordoned": True}
        spec = ClusterSpec.from_json(cluster.spec)
        for slot in spec.slots:
            if slot.slot in slots:
                spec = spec.with_slot(slot.slot, agent_generation=slot.agent_generation + 1)
        of_nodes = "" if slots == [HEAD] else f" of node {', '.join(map(str, slots))}"
        await self._clusters.change(
            cluster.id,
            ("revive", f"the agent{of_nodes} is gone"),
            spec=spec.to_json(),
            revivals=[*map(list, recent), *([slot, ctx.now()] for slot in slots)],
        )
        return {"raised": True, "slots": slots}

    async def _cordon(self, ctx: StepContext, cluster: Any, slots: list[int]) -> None:
        of_node = "" if slots == [HEAD] else f" of node {', '.join(map(str, slots))}"
        why = f"the agent{of_node} died {REVIVALS} times in {WINDOW_S / 60:g} minutes"
        await self._clusters.change(
            cluster.id,
            ("cordoned", why),
            status=INIT,
            init_kind="unhealthy",
            status_reason=f"CORDONED(agent): {why}",
            cordoned="agent" if slots == [HEAD] else f"agent:{','.join(map(str, slots))}",
        )
        ctx.say(f"{ctx.cluster_name}: {why}; not brought back again")

    async def _up(self, ctx: StepContext, prior: Mapping[str, Any]) -> Any:
        cluster = await self._clusters.find(ctx.workspace, ctx.cluster_name)
        if cluster is None:
            return None
        result = await self._operator.run(ctx, cluster, "up", ClusterSpec.from_json(cluster.spec))
        if result.outcome != "succeeded":
            await self._failed(cluster, result, HEAD in prior["raise"].get("slots", [HEAD]))
            raise error_of(result, cluster.name, "up")
        nodes = [dict(node) for node in result.nodes]
        await self._clusters.change(cluster.id, ("revived", "the agent is back"), nodes=nodes)
        await self._configure(ctx)
        return None

    async def _failed(self, cluster: Any, result: OperationResult, of_head: bool) -> None:
        """Without its head a cluster is of no use; without a worker it is what is left of it."""
        unhealthy = {
            "status": INIT,
            "init_kind": "unhealthy",
            "status_reason": f"its agent could not be brought back: {result.message}",
        }
        await self._clusters.change(cluster.id, ("revive_failed", result.message), **(unhealthy if of_head else {}))

    async def _configure(self, ctx: StepContext) -> None:
        """Once, without patience: an agent that died again at once is for the next revival."""
        cluster = await self._clusters.find(ctx.workspace, ctx.cluster_name)
        try:
            away = await self._reach.configure(cluster, CONFIGURE_S)
        except (Unreachable, AgentError, TimeoutError) as error:
            away = {HEAD: str(error) or "it did not answer in time"}
        for why in away.values():
            ctx.say(f"The agent of {ctx.cluster_name} is gone again: {why}")

    async def _on_cancel(self, ctx: StepContext, prior: Mapping[str, Any]) -> None:
        await self._operator.settle(ctx)


def _slot_and_time(revival: Any) -> tuple[int, float]:
    """Of a release that knew one node, the time alone."""
    return (int(revival[0]), float(revival[1])) if isinstance(revival, list) else (HEAD, float(revival))
