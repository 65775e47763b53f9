"""``down``: drain the agent, destroy the stack, prove by tag that nothing is left, forget the row.

Exit without an error means gone. What is left is named, and the row stays, so that `down` can be repeated.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from skyinfra.model.spec import ClusterSpec
from skyinfra.runtime.protocol import FINAL_STATES
from skyinfra.server.fleet.clusters import Clusters
from skyinfra.server.fleet.operate import Operator
from skyinfra.server.fleet.outcomes import Next, error_of, next_move
from skyinfra.server.fleet.ports import AgentError, Cloud, Unreachable
from skyinfra.server.fleet.reach import Reach
from skyinfra.server.requests.steps import Handler, Step, StepContext, in_order
from skyinfra.stacks.operation import OperationResult
from skyinfra.store import operations, requests
from skyinfra.store.database import Database

__all__ = ["Down", "Undertaker"]

GRACE_DEFAULT_S = 60.0
RPC_S = 10.0


class Undertaker:
    """Destroys a cluster's stack and proves it gone: for `down`, and for attempts that failed."""

    def __init__(self, db: Database, operator: Operator, cloud: Cloud) -> None:
        self._db = db
        self._operator = operator
        self._cloud = cloud

    async def destroy(self, ctx: StepContext, cluster: Any) -> OperationResult | None:
        """None when everything is gone; otherwise the failed result, with the names of what is left. Idempotent."""
        touched = await self._db.read(lambda db: operations.any_on_stack(db, cluster.stack))
        if touched or await self._left(cluster.stack):
            spec = ClusterSpec.from_json(cluster.spec)
            result = await self._operator.run(ctx, cluster, "destroy", spec, consent=("*",))
            if result.outcome != "succeeded" and next_move(result) is not Next.STOP:
                result = await self._operator.run(ctx, cluster, "destroy", spec, consent=("*",))
            if result.outcome != "succeeded":
                return result
        left = await self._left(cluster.stack)
        return OperationResult("failed", 0, "leftovers", leftovers=tuple(left)) if left else None

    async def _left(self, stack: str) -> list[str]:
        return [node["id"] for node in await asyncio.to_thread(self._cloud.observe, stack)]


class Down:
    def __init__(self, db: Database, clusters: Clusters, reach: Reach, undertaker: Undertaker) -> None:
        self._db = db
        self._clusters = clusters
        self._reach = reach
        self._undertaker = undertaker

    def handler(self) -> Handler:
        steps = in_order(
            Step("find", self._find),
            Step("drain", self._drain),
            Step("destroy", self._destroy),
            Step("forget", self._forget),
        )

        def plan(prior: Mapping[str, Any]) -> Step | None:
            # An idle cluster that got a job before it was drained stays.
            called_off = prior.get("drain") == {"called_off": True}
            return None if called_off else steps(prior)

        return Handler("down", plan, lane=True, clears_lane=True)

    async def _find(self, ctx: StepContext, prior: Mapping[str, Any]) -> Any:
        cluster = await self._clusters.find(ctx.workspace, ctx.cluster_name)
        if cluster is not None:
            return {"cluster_id": cluster.id}
        where = (ctx.workspace, ctx.cluster_name, "launch", ctx.created_at)
        if await self._db.read(lambda db: requests.cancelled_since(db, *where)):
            return {"cluster_id": None}  # we called its launch off before anything was made: that was the cluster
        await self._clusters.get(ctx.workspace, ctx.cluster_name)
        raise AssertionError("a cluster appeared although its lane is ours")

    async def _drain(self, ctx: StepContext, prior: Mapping[str, Any]) -> Any:
        """From here on no job is accepted, so that none slips in before the end."""
        cluster = await self._clusters.by_id(prior["find"]["cluster_id"])
        if cluster is None:
            return {}
        try:
            async with self._reach.head(cluster) as agent:
                await asyncio.wait_for(agent.drain(f"request {ctx.request_id}"), RPC_S)
                unfinished = [j for j in await agent.jobs() if j.state not in FINAL_STATES]
                if ctx.body.get("only_if_idle") and unfinished:
                    await agent.undrain()
                    return {"called_off": True}
                if ctx.body.get("graceful"):
                    limit = ctx.body.get("graceful_timeout") or GRACE_DEFAULT_S
                    await asyncio.wait_for(asyncio.gather(*(agent.cancel(j.job_id) for j in unfinished)), limit)
        except (Unreachable, AgentError, TimeoutError) as error:
            ctx.say(f"The agent of {cluster.name} was not drained ({error or 'it did not answer in time'})")
        return {}

    async def _destroy(self, ctx: StepContext, prior: Mapping[str, Any]) -> Any:
        cluster = await self._clusters.by_id(prior["find"]["cluster_id"])
        if cluster is None:
            return {}
        failed = await self._undertaker.destroy(ctx, cluster)
        if failed is None:
            return {}
        if ctx.body.get("purge"):
            ctx.say(f"Forgetting {cluster.name} although not everything is gone: {failed.message or failed.leftovers}")
            return {"purged": True}
        await self._clusters.change(
            cluster.id, ("down_failed", failed.message or ", ".join(failed.leftovers)), status_reason="down failed"
        )
        raise error_of(failed, cluster.name, "destroy")

    async def _forget(self, ctx: StepContext, prior: Mapping[str, Any]) -> Any:
        cluster = await self._clusters.by_id(prior["find"]["cluster_id"])
        if cluster is not None:
            await self._reach.forget(cluster.id)
            await self._clusters.remove(cluster, "purged" if prior["destroy"].get("purged") else "down")
        ctx.say(f"Cluster {ctx.cluster_name} is gone")
        return None
