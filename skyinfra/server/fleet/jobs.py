"""Jobs of a cluster as users see them: the queue, states, one row, and cancelling.

Read live from the head's agent when it answers, else from the mirror that its events left in the store.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from skyinfra.model.exceptions import NotSupportedError
from skyinfra.model.states import ClusterStatus
from skyinfra.runtime.protocol import FINAL_STATES, dump
from skyinfra.server.answers import JobNotFound
from skyinfra.server.fleet.clusters import Clusters
from skyinfra.server.fleet.ports import AgentError, Unreachable
from skyinfra.server.fleet.reach import Reach
from skyinfra.server.identity import Principal
from skyinfra.server.requests.steps import Handler, Step, StepContext, in_order
from skyinfra.store import jobs as mirror
from skyinfra.store.database import Database

__all__ = ["Jobs"]

LIVE_S = 3.0
UNFINISHED_IN_QUEUE = ("SETTING_UP", "PENDING", "RUNNING")
Row = dict[str, Any]


class Jobs:
    def __init__(self, db: Database, clusters: Clusters, reach: Reach) -> None:
        self._db = db
        self._clusters = clusters
        self._reach = reach

    # --- reading -------------------------------------------------------------------------------------------------

    async def rows(self, cluster: Any) -> list[Row]:
        """Ledger rows, oldest first."""
        try:
            async with self._reach.head(cluster) as agent:
                found = await asyncio.wait_for(agent.jobs(), LIVE_S)
                return [dump(row) for row in found]
        except (Unreachable, AgentError, TimeoutError):
            return await self._db.read(lambda db: mirror.of_cluster(db, cluster.id))

    async def row(self, workspace: str, name: str, job: str) -> Row:
        """One row, by id or ``latest``. Raises `ClusterDoesNotExist`, `JobNotFound`."""
        cluster = await self._clusters.get(workspace, name)
        found = await self.rows(cluster)
        if job == "latest":
            if not found:
                raise JobNotFound(f"there is no job on cluster '{name}' yet")
            return found[-1]
        for row in found:
            if str(row["job_id"]) == job:
                return row
        raise JobNotFound(f"there is no job {job} on cluster '{name}'")

    async def queue(self, principal: Principal, body: Row) -> bytes:
        """Of a cluster that is stopped, or about to be: what its node last told."""
        cluster = await self._clusters.get(body["workspace"], body["cluster_name"])
        if cluster.status not in (ClusterStatus.STOPPED.name, ClusterStatus.AUTOSTOPPING.name):
            cluster = await self._clusters.get_up(cluster.workspace, cluster.name)
        found = await self.rows(cluster)
        shown = [
            _queue_record(cluster, row)
            for row in reversed(found)
            if (not body["skip_finished"] or row["state"] in UNFINISHED_IN_QUEUE)
            and (body["all_users"] or row["user"] in ("", principal.user_name))
        ]
        return json.dumps(shown).encode()

    async def status(self, principal: Principal, body: Row) -> bytes:
        """Pairs of id and state. No ids: the latest job, or the pair of nulls when there is none."""
        cluster = await self._clusters.get_up(body["workspace"], body["cluster_name"])
        states = {row["job_id"]: row["state"] for row in await self.rows(cluster)}
        ids = body["job_ids"]
        if ids is None:
            latest = max(states, default=None)
            ids = [latest]
        return json.dumps([[job_id, states.get(job_id)] for job_id in ids]).encode()

    # --- cancelling ------------------------------------------------------------------------------------------------

    def cancel_handler(self) -> Handler:
        return Handler("cancel", in_order(Step("cancel", self._cancel)))

    async def _cancel(self, ctx: StepContext, prior: Mapping[str, Any]) -> Any:
        """The given jobs, all, or the caller's newest running one. Returns when they have ended."""
        body = ctx.body
        ids = body.get("job_ids")
        if (body.get("all") or body.get("all_users")) and ids:
            raise NotSupportedError("cancel takes either job ids or --all, not both")
        cluster = await self._clusters.get_up(ctx.workspace, ctx.cluster_name)

        async def cancel(agent: Any) -> list[int]:
            rows = await agent.jobs()
            chosen = _chosen(rows, ctx.principal.user_name, body)
            await asyncio.gather(*(agent.cancel(job_id) for job_id in chosen))
            return chosen

        done = await self._reach.patiently(ctx, cluster, cancel)
        ctx.say(f"Cancelled: {', '.join(map(str, done))}" if done else "No job to cancel")
        return None


def _chosen(rows: list[Any], user: str, body: Row) -> list[int]:
    """Which jobs a cancel means; finished ones are left alone."""
    unfinished = [row for row in rows if row.state not in FINAL_STATES]
    ids = body.get("job_ids")
    if ids is not None:
        return [row.job_id for row in unfinished if row.job_id in ids]
    if body.get("all_users"):
        return [row.job_id for row in unfinished]
    mine = [row for row in unfinished if row.user in ("", user)]
    if body.get("all"):
        return [row.job_id for row in mine]
    running = [row.job_id for row in mine if row.state == "RUNNING"]
    return running[-1:]


def _resources(cluster: Any, text: str) -> str:
    """``1x[H100:0.5]``: agents count devices and do not know what they are called."""
    gpus = cluster.spec["slots"][0]["gpus"]
    return text.replace("[GPU:", f"[{gpus[0]}:") if gpus else text


def _queue_record(cluster: Any, row: Row) -> Row:
    return {
        "job_id": row["job_id"],
        "job_name": row["name"],
        "username": row["user"] or cluster.user_name,
        "user_hash": cluster.user_id,
        "submitted_at": row["submitted_at"],
        "start_at": row["started_at"],
        "end_at": row["ended_at"],
        "resources": _resources(cluster, row["resources"]),
        "status": row["state"],
        "log_path": row["log_path"],
        "metadata": row["metadata"],
        "links": {},
        "exit_codes": row["exit_codes"],
        "reason": row["reason"],
    }
