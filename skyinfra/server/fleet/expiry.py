"""The server's half of autostop: its own idle clock per cluster, fed by the mirror of the agent's events.

Whichever is first, this clock or the node's word, asks for an `expire`; carrying it out, and finding that the cluster
has work again, is that request's part. Changes nothing itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from skyinfra.model.states import ClusterStatus
from skyinfra.runtime.idle import IdleClock, counts_jobs
from skyinfra.runtime.protocol import FINAL_STATES, Event
from skyinfra.server import log as server_log
from skyinfra.server.fleet.autostop import declared
from skyinfra.server.fleet.clusters import Clusters
from skyinfra.server.fleet.power import Power
from skyinfra.server.tasks import end_tasks
from skyinfra.store import jobs as mirror
from skyinfra.store.database import Database

__all__ = ["Expiry"]

_say = server_log.get("expiry")

Submit = Callable[[str, Any, dict[str, Any]], Awaitable[None]]


class Expiry:
    def __init__(
        self,
        db: Database,
        clusters: Clusters,
        power: Power,
        submit: Submit,
        minute_s: float,
    ) -> None:
        self._db = db
        self._clusters = clusters
        self._power = power
        self._submit = submit
        self._minute_s = minute_s
        self._clocks: dict[tuple[str, int], IdleClock] = {}
        self._sessions: dict[str, int] = {}
        self._asked: dict[str, asyncio.Task[None]] = {}
        self._looked_at: set[tuple[str, int]] = set()

    async def close(self) -> None:
        """Stop waiting; the requests go on by themselves."""
        await end_tasks(self._asked.values())

    async def heard(self, cluster_id: str, events: Sequence[Event]) -> None:
        """The node spoke: look at the clock, and at what it says of its own."""
        for event in events:
            if event.kind == "heartbeat":
                self._sessions[cluster_id] = int(event.body.get("sessions") or 0)
        if all(event.kind == "job" for event in events):
            return  # a burst of jobs is no reason to read all of them again and again
        cluster = await self._clusters.by_id(cluster_id)
        if cluster is None or cluster.status != ClusterStatus.UP.name or cluster.autostop < 0:
            return
        policy = declared(cluster)
        jobs = await self._db.read(lambda db: mirror.of_cluster(db, cluster_id))
        over = await self._idle_s(cluster, policy, jobs) >= cluster.autostop * self._minute_s
        told = any(e.kind == "autostop" and e.body.get("setting") == policy["setting"] for e in events)
        if over or told:
            self._ask(cluster, max((job["job_id"] for job in jobs), default=0))

    async def look_at_stopped(self, clusters: Sequence[Any]) -> None:
        """A node that stopped itself while nobody listened may have been meant to go down."""
        for cluster in clusters:
            seen = (cluster.id, cluster.generation)
            if cluster.status != ClusterStatus.STOPPED.name or not cluster.to_down or seen in self._looked_at:
                continue
            self._looked_at.add(seen)
            try:
                if await self._power.stopped_itself(cluster):
                    self._ask(cluster, 0)
            except OSError as error:  # this look is a bonus: it must not end the task that all watching hangs on
                _say.warning("a stopped cluster could not be looked at", cluster=cluster.name, why=str(error))
                self._looked_at.discard(seen)

    async def _idle_s(self, cluster: Any, policy: dict[str, Any], jobs: list[dict[str, Any]]) -> float:
        key = (cluster.id, policy["setting"])
        by_jobs = counts_jobs(policy["wait_for"])
        ended = [job["ended_at"] or 0.0 for job in jobs] if by_jobs else []
        mark = (len(jobs), max(ended, default=0.0)) if by_jobs else None
        if key not in self._clocks:
            # From what this server sees itself on: of the time before, another time of day may be told than passed,
            # and the node's own clock knows it.
            self._clocks = {known: clock for known, clock in self._clocks.items() if known[0] != cluster.id}
            self._clocks[key] = IdleClock(mark)
        unfinished = by_jobs and any(job["state"] not in FINAL_STATES for job in jobs)
        return self._clocks[key].look(unfinished or self._sessions.get(cluster.id, 0) > 0, mark)

    def _ask(self, cluster: Any, newest_job: int) -> None:
        """One request at a time per cluster."""
        task = self._asked.get(cluster.id)
        if task is not None and not task.done():
            return
        _say.info("the idle time of a cluster is over", cluster=cluster.name)
        body = {"setting": declared(cluster)["setting"], "newest_job": newest_job}
        task = asyncio.create_task(self._submit_and_forget(cluster, body), name=f"expire {cluster.name}")
        self._asked[cluster.id] = task

    async def _submit_and_forget(self, cluster: Any, body: dict[str, Any]) -> None:
        await self._submit("expire", cluster, body)
        self._clocks = {key: clock for key, clock in self._clocks.items() if key[0] != cluster.id}
