"""``start``: find → up → settle. A stopped cluster comes up with the next boot number; its disk and its jobs' ledger
are as they were. On a cluster that is up it does nothing, unless forced: then its agent is started anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from skyinfra.model.autostop import AutostopConfig
from skyinfra.model.exceptions import ClusterDoesNotExist, ResourcesUnavailableError
from skyinfra.model.states import AutostopWaitFor, ClusterStatus
from skyinfra.server.fleet.autostop import Autostop
from skyinfra.server.fleet.clusters import Clusters, handle_of
from skyinfra.server.fleet.provision import Provision
from skyinfra.server.requests.steps import Handler, Park, Step, StepContext, in_order

__all__ = ["Start", "wait_for_room"]


def wait_for_room(ctx: StepContext, error: ResourcesUnavailableError, retry_s: float) -> Park:
    """Another round later, without a process meanwhile."""
    ctx.say(f"{error}; tries again in {retry_s:g} s (--retry-until-up)")
    return Park(ctx.now() + retry_s, f"waits for room (--retry-until-up): {error}")


class Start:
    def __init__(self, clusters: Clusters, provision: Provision, autostop: Autostop, retry_s: float) -> None:
        self._clusters = clusters
        self._provision = provision
        self._autostop = autostop
        self._retry_s = retry_s

    def handler(self) -> Handler:
        steps = in_order(Step("find", self._find), Step("up", self._up), Step("settle", self._settle))
        return Handler("start", steps, lane=True, long=True, on_cancel=self._on_cancel)

    async def _find(self, ctx: StepContext, prior: Mapping[str, Any]) -> Any:
        cluster = await self._clusters.get(ctx.workspace, ctx.cluster_name)
        is_up = cluster.status == ClusterStatus.UP.name and not ctx.body.get("force")
        if is_up:
            ctx.say(f"Cluster {cluster.name} is up already")
        return {"cluster_id": cluster.id, "is_up": is_up}

    async def _up(self, ctx: StepContext, prior: Mapping[str, Any]) -> Any:
        if prior["find"]["is_up"]:
            return {}
        try:
            await self._provision.bring_up(
                ctx, prior["find"]["cluster_id"], attempt=None, force=bool(ctx.body.get("force"))
            )
        except ResourcesUnavailableError as error:
            if ctx.body.get("retry_until_up"):
                raise wait_for_room(ctx, error, self._retry_s) from error
            raise
        return {}

    async def _settle(self, ctx: StepContext, prior: Mapping[str, Any]) -> Any:
        """Autostop as asked; else it goes on as it was before the stop."""
        cluster = await self._clusters.by_id(prior["find"]["cluster_id"])
        if cluster is None:
            raise ClusterDoesNotExist(f"Cluster '{ctx.cluster_name}' does not exist.")
        minutes, wait_for = ctx.body.get("idle_minutes_to_autostop"), ctx.body.get("wait_for")
        if minutes is not None and not prior["find"]["is_up"]:
            policy = AutostopConfig(
                enabled=minutes >= 0,
                idle_minutes=max(0, minutes),
                down=bool(ctx.body.get("down")),
                wait_for=AutostopWaitFor(wait_for) if wait_for else None,
            )
            await self._autostop.apply(ctx, cluster, policy, None)
            await self._autostop.tell(ctx, cluster.id)
        return handle_of(cluster).to_json()

    async def _on_cancel(self, ctx: StepContext, prior: Mapping[str, Any]) -> None:
        await self._provision.settle(ctx)
