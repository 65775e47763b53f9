"""``stop``: find → drain → hooks → power. ``expire``, the server's own when the idle time is over: the same, or `down`.

A stop cancels what else is in the cluster's lane. An expiry cancels nobody: it waits for its turn, and then the cluster
must still be idle.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from skyinfra.model.exceptions import NotSupportedError, with_hint
from skyinfra.model.states import ClusterStatus
from skyinfra.server.fleet.autostop import declared, unstoppable
from skyinfra.server.fleet.clusters import Clusters
from skyinfra.server.fleet.down import Down
from skyinfra.server.fleet.ending import Ending
from skyinfra.server.fleet.operate import Operator
from skyinfra.server.fleet.power import Power
from skyinfra.server.requests.steps import Handler, Step, StepContext, in_order
from skyinfra.store import requests
from skyinfra.store.database import Database

__all__ = ["Stop"]

INIT, UP = ClusterStatus.INIT.name, ClusterStatus.UP.name
AUTOSTOPPING, STOPPED = ClusterStatus.AUTOSTOPPING.name, ClusterStatus.STOPPED.name


class Stop:
    def __init__(
        self, db: Database, clusters: Clusters, ending: Ending, operator: Operator, power: Power, down: Down
    ) -> None:
        self._db = db
        self._clusters = clusters
        self._ending = ending
        self._operator = operator
        self._power = power
        self._down = down

    def stop_handler(self) -> Handler:
        steps = in_order(
            Step("find", self._find),
            Step("drain", self._drain),
            Step("hooks", self._hooks),
            Step("power", self._off),
        )
        return Handler("stop", steps, lane=True, clears_lane=True, on_cancel=self._on_cancel)

    def expire_handler(self) -> Handler:
        begin = (Step("find", self._find_expired), Step("drain", self._drain_expired), Step("hooks", self._hooks))
        stop = in_order(*begin, Step("power", self._off))
        down = in_order(*begin, Step("destroy", self._down.destroy), Step("forget", self._down.forget))

        def plan(prior: Mapping[str, Any]) -> Step | None:
            if any((prior.get(name) or {}).get("called_off") for name in ("find", "drain")):
                return None
            return (down if (prior.get("find") or {}).get("event") == "down" else stop)(prior)

        return Handler("expire", plan, lane=True, on_cancel=self._on_cancel)

    # --- stop --------------------------------------------------------------------------------------------------------

    async def _find(self, ctx: StepContext, prior: Mapping[str, Any]) -> Any:
        where = (ctx.workspace, ctx.cluster_name, "launch", ctx.created_at)
        if await self._clusters.find(*where[:2]) is None and await self._db.read(
            lambda db: requests.cancelled_since(db, *where)
        ):
            ctx.say(f"The launch of {ctx.cluster_name} was called off before anything was made")
            return {"cluster_id": None, "event": "stop"}
        cluster = await self._clusters.get(ctx.workspace, ctx.cluster_name)
        if (why := unstoppable(cluster.spec)) is not None:
            raise with_hint(
                NotSupportedError(f"Cluster '{cluster.name}' {why}: it cannot be stopped, only removed."),
                f"`skyinfra down {cluster.name}` removes it",
            )
        if cluster.status == STOPPED:
            ctx.say(f"Cluster {cluster.name} is stopped already")
        return {"cluster_id": cluster.id, "event": "stop"}

    async def _drain(self, ctx: StepContext, prior: Mapping[str, Any]) -> Any:
        cluster = await self._clusters.by_id(prior["find"]["cluster_id"])
        if cluster is not None:
            await self._ending.drain(ctx, cluster)
        return {}

    async def _hooks(self, ctx: StepContext, prior: Mapping[str, Any]) -> Any:
        cluster = await self._clusters.by_id(prior["find"]["cluster_id"])
        if cluster is not None:
            await self._ending.hooks(ctx, cluster, prior["find"]["event"], auto=ctx.verb == "expire")
        return {}

    async def _off(self, ctx: StepContext, prior: Mapping[str, Any]) -> Any:
        cluster = await self._clusters.by_id(prior["find"]["cluster_id"])
        if cluster is not None:
            try:
                await self._power.off(ctx, cluster, "autostop" if ctx.verb == "expire" else "stop")
            except Exception:
                if not ctx.body.get("purge"):
                    raise
                ctx.say(f"The stop of {cluster.name} failed; it is called stopped all the same (purge)")
                await self._clusters.change(
                    cluster.id, ("purged", "called stopped, unproven"), status=STOPPED, init_kind=None, status_reason=""
                )
        return None

    # --- expire ------------------------------------------------------------------------------------------------------

    async def _find_expired(self, ctx: StepContext, prior: Mapping[str, Any]) -> Any:
        """The cluster, if it is still as it was when its time was found to be over."""
        cluster = await self._clusters.find(ctx.workspace, ctx.cluster_name)
        policy = {} if cluster is None else declared(cluster)
        same = policy.get("setting") == ctx.body["setting"] and policy.get("idle_minutes", -1) > 0
        if cluster is None or not same:
            return {"called_off": True}
        event = "down" if policy.get("down") else "stop"
        # A node that stopped itself, because we were away, is still to be removed if that was meant.
        if cluster.status in (UP, AUTOSTOPPING) or (cluster.status == STOPPED and event == "down"):
            return {"cluster_id": cluster.id, "event": event}
        return {"called_off": True}

    async def _drain_expired(self, ctx: StepContext, prior: Mapping[str, Any]) -> Any:
        cluster = await self._clusters.by_id(prior["find"]["cluster_id"])
        if cluster is None:
            return {"called_off": True}
        if declared(cluster)["wait_for"] == "none":
            await self._ending.drain(ctx, cluster)
        elif not await self._ending.drain_if_idle(ctx, cluster, ctx.body["newest_job"]):
            return {"called_off": True}
        if cluster.status == UP:
            ctx.say(f"Cluster {cluster.name} has been idle for {cluster.autostop} minutes")
            why = f"{'autodown' if prior['find']['event'] == 'down' else 'autostop'}: idle for {cluster.autostop} min"
            await self._clusters.change(cluster.id, ("autostopping", why), status=AUTOSTOPPING)
        return {}

    async def _on_cancel(self, ctx: StepContext, prior: Mapping[str, Any]) -> None:
        """Called off before anything changed: as it was. Afterwards it is in doubt, until the next request."""
        await self._operator.settle(ctx)
        cluster = await self._clusters.find(ctx.workspace, ctx.cluster_name)
        if cluster is None or cluster.status not in (UP, AUTOSTOPPING):
            return
        if cluster.spec["power"] == "running" and ctx.step != "destroy":
            await self._ending.undrain(cluster)
            if cluster.status == AUTOSTOPPING:
                spec, autostop = cluster.spec, declared(cluster)
                later = {**spec, "autostop": {**autostop, "setting": autostop["setting"] + 1}}  # the clock begins anew
                await self._clusters.change(cluster.id, ("autostop", "called off this time"), status=UP, spec=later)
            return
        reason = f"its {'removal' if ctx.step == 'destroy' else 'stop'} was cancelled half way"
        await self._clusters.change(
            cluster.id, ("stop_cancelled", reason), status=INIT, init_kind="unhealthy", status_reason=reason
        )
