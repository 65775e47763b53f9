"""``exec``: check → sync (the workdir only) → submit. Takes no lane: it runs beside all but the cluster's end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from skyinfra.model.exceptions import NotSupportedError
from skyinfra.server.fleet.clusters import Clusters
from skyinfra.server.fleet.demand import read_demand
from skyinfra.server.fleet.reach import WORKDIR, Reach
from skyinfra.server.fleet.submit import check_fits, submit_job, withdraw_job
from skyinfra.server.requests.steps import Handler, Step, StepContext, in_order

__all__ = ["Exec"]


class Exec:
    def __init__(self, clusters: Clusters, reach: Reach) -> None:
        self._clusters = clusters
        self._reach = reach

    def handler(self) -> Handler:
        steps = in_order(Step("check", self._check), Step("sync", self._sync), Step("submit", self._submit))
        return Handler("exec", steps, long=True, on_cancel=self._on_cancel)

    async def _check(self, ctx: StepContext, prior: Mapping[str, Any]) -> Any:
        cluster = await self._clusters.get_up(ctx.workspace, ctx.cluster_name)
        check_fits(cluster, read_demand(ctx.body["task"]))
        if ctx.body.get("down"):
            raise NotSupportedError("exec --down is not in skyinfra yet; `skyinfra down` when the job has ended")
        return {}

    async def _sync(self, ctx: StepContext, prior: Mapping[str, Any]) -> Any:
        if ctx.body.get("dryrun"):
            return {"synced": []}
        cluster = await self._clusters.get_up(ctx.workspace, ctx.cluster_name)
        workdir = {k: v for k, v in (ctx.body.get("blobs") or {}).items() if k.rstrip("/") == WORKDIR}
        synced = await self._reach.patiently_all(ctx, cluster, lambda: self._reach.sync_all(cluster, workdir))
        return {"synced": synced, "git": await self._reach.check_out(ctx, cluster)}

    async def _submit(self, ctx: StepContext, prior: Mapping[str, Any]) -> Any:
        if ctx.body.get("dryrun"):
            return {"job_id": None, "handle": None}
        cluster = await self._clusters.get_up(ctx.workspace, ctx.cluster_name)
        demand = read_demand(ctx.body["task"])
        git = prior["sync"].get("git") or {}
        return await submit_job(ctx, self._reach, self._clusters, cluster, demand, no_setup=True, git=git)

    async def _on_cancel(self, ctx: StepContext, prior: Mapping[str, Any]) -> None:
        await withdraw_job(ctx, self._reach, self._clusters, prior)
