"""Off, and seen off: `spec.power` becomes stopped, an operation carries it out, and then the row says so.

A machine that was stopped from outside is written into the declaration before anything else is done with the stack.
Back on is `provision`'s: it is how a cluster comes up.
"""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

from skyinfra.model.spec import ClusterSpec
from skyinfra.model.states import ClusterStatus
from skyinfra.server.fleet.clouds import Clouds, machines_of
from skyinfra.server.fleet.clusters import Clusters
from skyinfra.server.fleet.operate import Operator
from skyinfra.server.fleet.outcomes import error_of
from skyinfra.server.fleet.reach import Reach
from skyinfra.server.requests.steps import StepContext
from skyinfra.store import jobs as mirror
from skyinfra.store.database import Database

__all__ = ["Power"]

INIT, STOPPED = ClusterStatus.INIT.name, ClusterStatus.STOPPED.name
JOBS_ENDED = "the node was stopped while the job ran"


class Power:
    def __init__(self, db: Database, clusters: Clusters, operator: Operator, reach: Reach, clouds: Clouds) -> None:
        self._db = db
        self._clusters = clusters
        self._operator = operator
        self._reach = reach
        self._clouds = clouds

    async def off(self, ctx: StepContext, cluster: Any, why: str) -> None:
        """STOPPED when it returns. Idempotent. Raises the public error of what failed; the cluster is INIT then."""
        if cluster.status == STOPPED:
            return
        # The agent's version stays as it is: a stop must not need the program of another release.
        spec = dataclasses.replace(ClusterSpec.from_json(cluster.spec), power="stopped")
        await self._clusters.change(cluster.id, ("stop", why), spec=spec.to_json())
        result = await self._operator.up(ctx, cluster, spec)
        if result.outcome != "succeeded":
            reason = f"its stop failed: {result.message}"
            await self._clusters.change(
                cluster.id, ("stop_failed", reason), status=INIT, init_kind="unhealthy", status_reason=reason
            )
            raise error_of(result, cluster.name, "stop")
        await self._reach.forget(cluster.id)
        await self._stopped(cluster, [dict(node) for node in result.nodes], why)
        ctx.say(f"Cluster {cluster.name} is stopped")

    async def _stopped(self, cluster: Any, nodes: list[dict[str, Any]], why: str) -> None:
        await self._clusters.change(
            cluster.id,
            ("stopped", why),
            status=STOPPED,
            nodes=nodes,
            init_kind=None,
            status_reason="",
            cordoned=None,
            revivals=[],
        )
        at = self._clusters.now()
        await self._db.write(lambda db: mirror.end_unfinished(db, cluster.id, at, JOBS_ENDED))

    async def back_to_stopped(self, cluster: Any, spec: ClusterSpec, why: str) -> bool:
        """After a start that failed: STOPPED again if the machines prove to be off."""
        if not await self.seen_off(cluster):
            return False
        off = dataclasses.replace(spec, power="stopped")
        await self._clusters.change(
            cluster.id, ("start_failed", why), spec=off.to_json(), status=STOPPED, init_kind=None, status_reason=why
        )
        return True

    async def seen_off(self, cluster: Any) -> bool:
        """Whether the cloud shows all machines of the cluster, and each of them stopped."""
        seen = await asyncio.to_thread(machines_of, self._clouds, cluster)
        return len(seen) >= len(cluster.spec["slots"]) and all(machine.get("state") == "stopped" for machine in seen)

    async def gone(self, cluster: Any) -> set[int]:
        """The slots of which the cloud shows no machine that could come back."""
        seen = await asyncio.to_thread(machines_of, self._clouds, cluster)
        there = {(machine["slot"], machine["incarnation"]) for machine in seen if machine.get("state") != "deleting"}
        return {slot["slot"] for slot in cluster.spec["slots"] if (slot["slot"], slot["incarnation"]) not in there}

    async def stopped_itself(self, cluster: Any) -> bool:
        """Whether the node stopped itself because its idle time was over."""
        seen = await asyncio.to_thread(machines_of, self._clouds, cluster)
        return bool(seen) and all(machine.get("stopped_by") == "autostop" for machine in seen)
