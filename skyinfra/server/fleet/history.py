"""The history of clusters as users see it: `history` lists updates, `diff` compares two of them, or now and planned.

Updates are numbered by the cluster's name through all its lives, so a removed cluster's history can still be read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from skyinfra.model.exceptions import ClusterDoesNotExist, with_hint
from skyinfra.model.spec import ClusterSpec
from skyinfra.server.fleet.clusters import Clusters
from skyinfra.server.fleet.plans import Planner, spec_changes
from skyinfra.server.fleet.provision import Provision
from skyinfra.server.identity import Principal
from skyinfra.server.requests.steps import Handler, Step, StepContext, in_order
from skyinfra.server.settings import DEFAULT_WORKSPACE
from skyinfra.store import updates as rows
from skyinfra.store.database import Database

__all__ = ["History", "update_of"]

Row = Any


async def update_of(db: Database, workspace: str, name: str, number: int) -> Row:
    """Raises `ClusterDoesNotExist` for a name without a history, `ValueError` for a number that it does not have."""
    found = await db.read(lambda d: rows.get(d, workspace, name, number))
    if found is not None:
        return found
    last = await db.read(lambda d: rows.last_number(d, workspace, name))
    if not last:
        raise _unknown(name)
    raise with_hint(
        ValueError(f"cluster '{name}' has no update {number}: the last one is {last}"),
        f"`skyinfra history {name}` lists them",
    )


class History:
    def __init__(self, db: Database, clusters: Clusters, provision: Provision, planner: Planner) -> None:
        self._db = db
        self._clusters = clusters
        self._provision = provision
        self._planner = planner

    async def read(self, principal: Principal, body: dict[str, Any]) -> bytes:
        """Updates, newest first, as a JSON array. Raises `ClusterDoesNotExist` when there never was such a cluster."""
        workspace, name = body.get("workspace") or DEFAULT_WORKSPACE, body["cluster_name"]
        found = await self._db.read(lambda db: rows.listed(db, workspace, name, body.get("limit")))
        if not found and await self._clusters.find(workspace, name) is None:
            raise _unknown(name)
        return json.dumps([_record(row) for row in found], separators=(",", ":")).encode()

    def diff_handler(self) -> Handler:
        return Handler("diff", in_order(Step("compare", self._compare)))

    async def _compare(self, ctx: StepContext, prior: Mapping[str, Any]) -> Any:
        """Two updates; an update and now; or, without any number, now and what a launch would make of it."""
        before, after = ctx.body.get("before"), ctx.body.get("after")
        where = (ctx.workspace, ctx.cluster_name)
        if before is None:
            cluster = await self._clusters.get(*where)
            now, planned = ClusterSpec.from_json(cluster.spec), await self._provision.intended(cluster)
            plan = await self._planner.plan(ctx, now, planned)
            return {"before": "now", "after": "planned", "spec": plan["spec"], "resources": _worth_a_line(plan)}
        one = _held(await update_of(self._db, *where, before))
        two = _held(await update_of(self._db, *where, after)) if after is not None else await self._now(*where)
        return {
            "before": before,
            "after": after if after is not None else "now",
            "spec": spec_changes(one["spec"], two["spec"]),
            "resources": compare_resources(one["resources"], two["resources"]),
        }

    async def _now(self, workspace: str, name: str) -> dict[str, Any]:
        """The spec that is in force, and what the newest finished update left. A cluster that is gone holds nothing."""
        cluster = await self._clusters.find(workspace, name)
        last = await self._db.read(lambda db: rows.last_known(db, workspace, name))
        resources = last.resources if last is not None else []
        if cluster is not None:
            return {"spec": cluster.spec, "resources": resources}
        if last is None:
            raise _unknown(name)
        return {"spec": last.spec, "resources": resources}


def compare_resources(one: list[dict[str, Any]] | None, two: list[dict[str, Any]] | None) -> list[dict[str, Any]]:
    """Lines as a plan's: create, update or delete, with the inputs that differ. Pure.

    An update of which nobody knows what it left (None) compares as unknown: no lines, rather than invented ones.
    """
    if one is None or two is None:
        return []
    before, after = {r["urn"]: r for r in one}, {r["urn"]: r for r in two}
    lines = []
    for urn in dict.fromkeys([*before, *after]):
        old, new = before.get(urn), after.get(urn)
        shown = new or old
        assert shown is not None, "the urn came from one of the two"
        line = {name: shown[name] for name in ("urn", "type", "name")}
        if old is None or new is None:
            lines.append({**line, "op": "create" if old is None else "delete", "causes": []})
            continue
        causes = _input_changes(old["inputs"], new["inputs"])
        if causes or old["id"] != new["id"]:
            lines.append({**line, "op": "update" if old["id"] == new["id"] else "replace", "causes": causes})
    return lines


def _input_changes(old: dict[str, Any], new: dict[str, Any]) -> list[dict[str, Any]]:
    names = [name for name in dict.fromkeys([*old, *new]) if old.get(name) != new.get(name)]
    return [{"property": name, "before": old.get(name), "after": new.get(name)} for name in names]


def _held(row: Row) -> dict[str, Any]:
    return {"spec": row.spec, "resources": row.resources}


def _worth_a_line(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [one for one in plan["resources"] if one["op"] != "same"]


def _record(row: Row) -> dict[str, Any]:
    names = (
        "number",
        "kind",
        "state",
        "version",
        "changes",
        "message",
        "failure_kind",
        "request_id",
        "verb",
        "command",
    )
    record = {name: getattr(row, name) for name in names}
    record |= {"user_id": row.user_id, "user_name": row.user_name, "stack": row.stack, "cluster_hash": row.cluster_id}
    return {**record, "started_at": row.started_at, "finished_at": row.finished_at}


def _unknown(name: str) -> Exception:
    return with_hint(
        ClusterDoesNotExist(f"There never was a cluster '{name}'."), "`skyinfra status` lists the ones there are"
    )
