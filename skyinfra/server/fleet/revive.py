"""``revive``, an internal request: an agent that died is brought back by raising its generation, in one `up`.

If its machine is found to be stopped, that is written into the declaration instead: the cluster is STOPPED.
At most `REVIVALS` times in `WINDOW_S`; then the node is CORDONED(agent) and the cluster is shown as unhealthy until a
launch brings it up again.
"""

from __future__ import annotations

import asyncio
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
from skyinfra.server.fleet.reach import Reach
from skyinfra.server.requests.steps import Handler, Step, StepContext, in_order

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
        if cluster is None or cluster.status != UP or await self._provision.answers(cluster):
            return {"raised": False}  # whoever had the lane before us has seen to it
        if await self._power.seen_off(cluster):
            ctx.say(f"Cluster {ctx.cluster_name} was stopped from outside")
            await self._power.off(ctx, cluster, "found stopped")
            return {"raised": False, "stopped": True}
        # one of the future was noted before the time of day was set back: who knows when
        recent = [at for at in cluster.revivals if 0 <= ctx.now() - at < WINDOW_S]
        if len(recent) >= REVIVALS:
            why = f"the agent died {len(recent)} times in {WINDOW_S / 60:g} minutes"
            await self._clusters.change(
                cluster.id,
                ("cordoned", why),
                status=INIT,
                init_kind="unhealthy",
                status_reason=f"CORDONED(agent): {why}",
                cordoned="agent",
            )
            ctx.say(f"{ctx.cluster_name}: {why}; not brought back again")
            return {"raised": False, "cordoned": True}
        spec = ClusterSpec.from_json(cluster.spec)
        spec = spec.with_slot(0, agent_generation=spec.slots[0].agent_generation + 1)
        await self._clusters.change(
            cluster.id, ("revive", "the agent is gone"), spec=spec.to_json(), revivals=[*recent, ctx.now()]
        )
        return {"raised": True}

    async def _up(self, ctx: StepContext, prior: Mapping[str, Any]) -> Any:
        cluster = await self._clusters.find(ctx.workspace, ctx.cluster_name)
        if cluster is None:
            return None
        result = await self._operator.run(ctx, cluster, "up", ClusterSpec.from_json(cluster.spec))
        if result.outcome != "succeeded":
            await self._clusters.change(
                cluster.id,
                ("revive_failed", result.message),
                status=INIT,
                init_kind="unhealthy",
                status_reason=f"its agent could not be brought back: {result.message}",
            )
            raise error_of(result, cluster.name, "up")
        nodes = [dict(node) for node in result.nodes]
        await self._clusters.change(cluster.id, ("revived", "the agent is back"), nodes=nodes)
        await self._configure(ctx)
        return None

    async def _configure(self, ctx: StepContext) -> None:
        """Once, without patience: an agent that died again at once is for the next revival."""
        cluster = await self._clusters.find(ctx.workspace, ctx.cluster_name)
        try:
            async with self._reach.head(cluster) as agent:
                await asyncio.wait_for(agent.put_config(self._reach.config_of(cluster)), CONFIGURE_S)
        except (Unreachable, AgentError, TimeoutError) as error:
            ctx.say(f"The agent of {ctx.cluster_name} is gone again: {error}")

    async def _on_cancel(self, ctx: StepContext, prior: Mapping[str, Any]) -> None:
        await self._operator.settle(ctx)
