"""``down``: drain the agent, run its hooks, destroy the stack, prove by tag that nothing is left, forget the row.

Exit without an error means gone. What is left is named, and the row stays, so that `down` can be repeated.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from skyinfra.model.spec import ClusterSpec
from skyinfra.model.states import ClusterStatus
from skyinfra.server.fleet.clouds import Clouds, machines_of
from skyinfra.server.fleet.clusters import Clusters
from skyinfra.server.fleet.ending import Ending
from skyinfra.server.fleet.operate import Operator
from skyinfra.server.fleet.outcomes import Next, error_of, next_move
from skyinfra.server.fleet.reach import Reach
from skyinfra.server.requests.steps import Handler, Step, StepContext, in_order
from skyinfra.stacks.operation import OperationResult
from skyinfra.store import operations, requests
from skyinfra.store.database import Database

__all__ = ["Down", "Undertaker"]


class Undertaker:
    """Destroys a cluster's stack and proves it gone: for `down`, and for attempts that failed."""

    def __init__(self, db: Database, operator: Operator, clouds: Clouds) -> None:
        self._db = db
        self._operator = operator
        self._clouds = clouds

    async def destroy(self, ctx: StepContext, cluster: Any) -> OperationResult | None:
        """None when everything is gone; otherwise the failed result, with the names of what is left. Idempotent."""
        touched = await self._db.read(lambda db: operations.any_on_stack(db, cluster.stack))
        adopted = cluster.init_kind == "unhealthy"  # its stack was there before any operation that we know of
        if touched or adopted or await self._left(cluster):
            spec = ClusterSpec.from_json(cluster.spec)
            result = await self._operator.run(ctx, cluster, "destroy", spec, consent=("*",))
            if result.outcome != "succeeded" and next_move(result) is not Next.STOP:
                result = await self._operator.run(ctx, cluster, "destroy", spec, consent=("*",))
            if result.outcome != "succeeded":
                return result
        left = await self._left(cluster)
        return OperationResult("failed", 0, "leftovers", leftovers=tuple(left)) if left else None

    async def _left(self, cluster: Any) -> list[str]:
        return [node["id"] for node in await asyncio.to_thread(machines_of, self._clouds, cluster)]


class Down:
    def __init__(self, db: Database, clusters: Clusters, reach: Reach, undertaker: Undertaker, ending: Ending) -> None:
        self._db = db
        self._ending = ending
        self._clusters = clusters
        self._reach = reach
        self._undertaker = undertaker

    def handler(self) -> Handler:
        steps = in_order(
            Step("find", self._find),
            Step("drain", self._drain),
            Step("hooks", self._hooks),
            Step("destroy", self.destroy),
            Step("forget", self.forget),
        )
        return Handler("down", steps, lane=True, clears_lane=True)

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
        if cluster is not None:
            await self._ending.drain(ctx, cluster)
        return {}

    async def _hooks(self, ctx: StepContext, prior: Mapping[str, Any]) -> Any:
        cluster = await self._clusters.by_id(prior["find"]["cluster_id"])
        if cluster is not None:
            await self._ending.hooks(ctx, cluster, "down")
        return {}

    async def destroy(self, ctx: StepContext, prior: Mapping[str, Any]) -> Any:
        cluster = await self._clusters.by_id(prior["find"]["cluster_id"])
        if cluster is None:
            return {}
        failed = await self._undertaker.destroy(ctx, cluster)
        if failed is None:
            return {}
        if ctx.body.get("purge"):
            ctx.say(f"Forgetting {cluster.name} although not everything is gone: {failed.message or failed.leftovers}")
            return {"purged": True}
        doubt: dict[str, Any] = {"status_reason": "down failed"}
        if cluster.status == ClusterStatus.AUTOSTOPPING.name:  # it is not any more, and nobody goes on by himself
            doubt |= {"status": ClusterStatus.INIT.name, "init_kind": "unhealthy"}
        event = ("down_failed", failed.message or ", ".join(failed.leftovers))
        await self._clusters.change(cluster.id, event, **doubt)
        raise error_of(failed, cluster.name, "destroy")

    async def forget(self, ctx: StepContext, prior: Mapping[str, Any]) -> Any:
        cluster = await self._clusters.by_id(prior["find"]["cluster_id"])
        if cluster is not None:
            await self._reach.forget(cluster.id)
            await self._clusters.remove(cluster, "purged" if prior["destroy"].get("purged") else "down")
        ctx.say(f"Cluster {ctx.cluster_name} is gone")
        return None
