"""``rollback``: find → plan (a dryrun ends here) → up → settle. A cluster's spec becomes that of an earlier update.

What comes back is what the cluster was made of: machines, ports, labels. What does not: whether it runs (`stop` and
`start` do that), its agent's version (this server ships one), and the counters that bring back agents and replace
machines, which only ever rise. A machine that would be deleted or replaced needs consent.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from skyinfra.model.exceptions import with_hint
from skyinfra.model.spec import ClusterSpec, Slot
from skyinfra.server.fleet.clusters import Clusters, handle_of
from skyinfra.server.fleet.history import update_of
from skyinfra.server.fleet.plans import Planner
from skyinfra.server.fleet.provision import Provision, standing
from skyinfra.server.requests.steps import Handler, Step, StepContext
from skyinfra.store import updates as rows
from skyinfra.store.database import Database

__all__ = ["Rollback", "rolled_back"]


def rolled_back(now: ClusterSpec, then: ClusterSpec) -> ClusterSpec:
    """Today's spec with what `then` was made of. Pure. Raises `ValueError` when that was in another place."""
    if (then.cloud, then.region) != (now.cloud, now.region):
        was = f"{then.cloud} {then.region or ''}".strip()
        raise with_hint(
            ValueError(f"cluster '{now.name}' was on {was} then; a cluster does not move"),
            f"`skyinfra down {now.name}` and launch it there again",
        )
    today = {slot.slot: slot for slot in now.slots}
    slots = tuple(_risen(slot, today.get(slot.slot)) for slot in then.slots)
    return dataclasses.replace(now, slots=slots, zones=then.zones, ports=then.ports, labels=then.labels)


def _risen(then: Slot, now: Slot | None) -> Slot:
    """Counters never fall: an older number would name a machine that is gone, or an agent that is not started again."""
    if now is None:
        return then
    return dataclasses.replace(then, incarnation=now.incarnation, agent_generation=now.agent_generation)


class Rollback:
    def __init__(self, db: Database, clusters: Clusters, provision: Provision, planner: Planner) -> None:
        self._db = db
        self._clusters = clusters
        self._provision = provision
        self._planner = planner

    def handler(self) -> Handler:
        return Handler("rollback", self._next, lane=True, on_cancel=self._on_cancel)

    def _next(self, prior: Mapping[str, Any]) -> Step | None:
        if "find" not in prior:
            return Step("find", self._find)
        if prior["find"]["dryrun"]:
            return None if "plan" in prior else Step("plan", self._plan)
        if "up" not in prior:
            return Step("up", self._up)
        return None if "settle" in prior else Step("settle", self._settle)

    async def _find(self, ctx: StepContext, prior: Mapping[str, Any]) -> Any:
        where, number = (ctx.workspace, ctx.cluster_name), ctx.body["to"]
        cluster = await self._clusters.get(*where)
        last = await self._db.read(lambda db: rows.last_number(db, *where))
        if ctx.body.get("expect") not in (None, last):
            raise with_hint(
                RuntimeError(f"cluster '{cluster.name}' has had another update since the plan was made ({last})"),
                "look at the new plan: run the rollback again",
            )
        target = await update_of(self._db, *where, number)
        if target.kind != "up" or target.state != "succeeded":
            what = "removed the cluster" if target.kind == "destroy" else f"was {target.kind}: {target.state}"
            raise with_hint(
                ValueError(f"update {number} of cluster '{cluster.name}' {what}: there is nothing to go back to"),
                f"`skyinfra history {cluster.name}` lists the updates; take an up that succeeded",
            )
        spec = rolled_back(ClusterSpec.from_json(cluster.spec), ClusterSpec.from_json(target.spec))
        return {
            "cluster_id": cluster.id,
            "spec": spec.to_json(),
            "before": standing(cluster),
            "last": last,
            "dryrun": bool(ctx.body.get("dryrun")),
        }

    async def _plan(self, ctx: StepContext, prior: Mapping[str, Any]) -> Any:
        found = prior["find"]
        cluster = await self._clusters.by_id(found["cluster_id"])
        assert cluster is not None, "the lane is ours, so the row cannot have gone"
        now, spec = ClusterSpec.from_json(cluster.spec), ClusterSpec.from_json(found["spec"])
        plan = await self._planner.plan(ctx, now, spec, self._consent(ctx))
        return {"plan": plan, "update": found["last"], "handle": None}

    async def _up(self, ctx: StepContext, prior: Mapping[str, Any]) -> Any:
        found = prior["find"]
        spec = ClusterSpec.from_json(found["spec"])
        await self._provision.change_spec(ctx, found["cluster_id"], spec, self._consent(ctx), found["before"])
        return {}

    async def _settle(self, ctx: StepContext, prior: Mapping[str, Any]) -> Any:
        found = prior["find"]
        await self._provision.settle_running(ctx, found["cluster_id"])
        ctx.say(f"Cluster {ctx.cluster_name} is as it was after update {ctx.body['to']}")
        cluster = await self._clusters.by_id(found["cluster_id"])
        last = await self._db.read(lambda db: rows.last_number(db, ctx.workspace, ctx.cluster_name))
        return {"plan": None, "update": last, "handle": handle_of(cluster).to_json()}

    @staticmethod
    def _consent(ctx: StepContext) -> tuple[str, ...]:
        return ("*",) if ctx.body.get("replace_nodes") else ()

    async def _on_cancel(self, ctx: StepContext, prior: Mapping[str, Any]) -> None:
        """The cluster stays as far as it came, in INIT: the next launch or rollback finishes it."""
        await self._provision.settle(ctx)
