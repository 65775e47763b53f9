"""One watcher per cluster that is UP: mirrors its agent's ledger, notices its death, and asks for what follows.

A watcher changes no stack itself: it submits an internal request (`revive`, `down`), which takes the lane like others.
It re-reads the cluster's row each time round, so that a change made elsewhere is seen.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from skyinfra.model.states import ClusterStatus
from skyinfra.runtime.protocol import HEARTBEAT_S, Event
from skyinfra.server import log as server_log
from skyinfra.server.fleet.clusters import Clusters
from skyinfra.server.fleet.expiry import Expiry
from skyinfra.server.fleet.ports import Agent, AgentError, Unreachable
from skyinfra.server.fleet.power import Power
from skyinfra.server.fleet.reach import Reach
from skyinfra.server.tasks import end_tasks
from skyinfra.store import clusters as rows
from skyinfra.store import jobs as mirror
from skyinfra.store.database import Database

__all__ = ["Watchers"]

_say = server_log.get("watch")

SILENCE_S = 2.5 * HEARTBEAT_S
LOOK_AGAIN_S = 30.0
COMES_BACK_S = 1.0
ASK_EVERY_S = 0.2
Submit = Callable[[str, Any, dict[str, Any]], Awaitable[None]]
"""`(verb, cluster row, body)`: an internal request, awaited to its end."""


class Watchers:
    def __init__(
        self,
        db: Database,
        clusters: Clusters,
        reach: Reach,
        power: Power,
        submit: Submit,
        minute_s: float = 60.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._db = db
        self._clusters = clusters
        self._reach = reach
        self._submit = submit
        self._expiry = Expiry(db, clusters, power, submit, minute_s)
        self._clock = clock
        self._changed = asyncio.Event()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._reviving: set[asyncio.Task[None]] = set()

    def look(self) -> None:
        """Something about the clusters changed."""
        self._changed.set()

    async def run(self) -> None:
        """Keep one task per cluster that is UP, until cancelled."""
        try:
            while True:
                self._changed.clear()
                await self._reconcile()
                try:
                    # Not `wait_for`: when the event is set at that moment, it swallows the cancel that ends this loop.
                    async with asyncio.timeout(LOOK_AGAIN_S):
                        await self._changed.wait()
                except TimeoutError:
                    pass  # the slow look under the hints
        finally:
            await end_tasks([*self._tasks.values(), *self._reviving])
            await self._expiry.close()

    async def _reconcile(self) -> None:
        rows_now = await self._clusters.all()
        await self._expiry.look_at_stopped(rows_now)
        wanted = {row.id for row in rows_now if _watched(row)}
        for cluster_id in [i for i, task in self._tasks.items() if i not in wanted or task.done()]:
            task = self._tasks.pop(cluster_id)
            task.cancel()
            if task.done() and not task.cancelled() and task.exception() is not None:
                _say.error("a watcher failed; it starts again", cluster=cluster_id, exc_info=task.exception())
        for cluster_id in wanted - self._tasks.keys():
            self._tasks[cluster_id] = asyncio.create_task(self._watch(cluster_id), name=f"watch {cluster_id}")

    # --- one cluster -------------------------------------------------------------------------------------------------

    async def _watch(self, cluster_id: str) -> None:
        while True:
            cluster = await self._clusters.by_id(cluster_id)
            if cluster is None or not _watched(cluster):
                return
            try:
                async with self._reach.head(cluster) as agent:
                    await self._follow(cluster, agent)
            except (Unreachable, AgentError, TimeoutError) as error:
                _say.info("an event stream ended", cluster=cluster.name, why=str(error))
            if not await self._comes_back(cluster_id):
                await self._revive(cluster_id)
            await asyncio.sleep(ASK_EVERY_S)  # an agent that answers but streams nothing must not make this spin

    async def _follow(self, cluster: Any, agent: Agent) -> None:
        """Until the stream ends or falls silent. Events that arrive together are stored together."""
        # Each time: an agent that was started anew, by whom it may be, learns its place from here.
        await self._reach.configure(cluster, COMES_BACK_S * 5)
        arrived: asyncio.Queue[Event | None] = asyncio.Queue()
        reader = asyncio.create_task(_read_events(agent, cluster.events_seq, arrived))
        try:
            while True:
                async with asyncio.timeout(SILENCE_S):  # not `wait_for`, as in `run`
                    batch = [await arrived.get()]
                while not arrived.empty():
                    batch.append(arrived.get_nowait())
                await self._store(cluster, [event for event in batch if event is not None])
                if None in batch:
                    await reader  # raises what ended it
                    return
        except TimeoutError:
            raise Unreachable(f"no heartbeat for {SILENCE_S:g} s") from None
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)

    async def _store(self, cluster: Any, events: list[Event]) -> None:
        changes = [event.body for event in events if event.kind == "job"]
        seq = max((event.seq for event in events if event.kind != "heartbeat"), default=0)
        if seq:

            def write(db: Any) -> None:
                if rows.by_id(db, cluster.id) is not None:
                    mirror.mirror(db, cluster.id, changes, self._clock())
                    rows.saw_events(db, cluster.id, seq)

            await self._db.write(write)
        for event in events:
            if event.kind == "node_health":
                await self._note_health(cluster.id, event.body)
        await self._expiry.heard(cluster.id, events)

    async def _note_health(self, cluster_id: str, said: dict[str, Any]) -> None:
        """What the head's agent says about a node. A worker that is LOST may have lost its agent only."""
        slot, state, reason = int(said.get("slot") or 0), str(said.get("state")), str(said.get("reason") or "")
        try:
            cluster = await self._clusters.by_id(cluster_id)
            if cluster is None:
                return
            await self._clusters.change(
                cluster_id,
                ("node_health", f"node {slot} is {state}" + (f": {reason}" if reason else "")),
                node_health={**(cluster.node_health or {}), str(slot): {"state": state, "reason": reason}},
            )
        except rows.Stale:
            return  # the cluster went away meanwhile
        if state == "LOST" and _watched(cluster):
            # apart: the head is still to be listened to, and a revival waits for the lane
            task = asyncio.create_task(self._ask_revival(cluster), name=f"revive {cluster.name}")
            self._reviving.add(task)
            task.add_done_callback(self._revived)

    async def _ask_revival(self, cluster: Any) -> None:
        await self._submit("revive", cluster, {})

    def _revived(self, task: asyncio.Task[None]) -> None:
        self._reviving.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _say.error("a revival could not be asked for", exc_info=task.exception())

    async def _comes_back(self, cluster_id: str) -> bool:
        """Whether the agent answers within a moment: it may only have been started anew, or the cluster be going."""
        deadline = time.monotonic() + COMES_BACK_S
        while True:
            cluster = await self._clusters.by_id(cluster_id)
            if cluster is None or not _watched(cluster):
                return True
            try:
                async with self._reach.head(cluster) as agent:
                    async with asyncio.timeout(COMES_BACK_S):
                        await agent.health()
                    return True
            except (Unreachable, AgentError, TimeoutError):
                if time.monotonic() > deadline:
                    return False
            await asyncio.sleep(ASK_EVERY_S)

    async def _revive(self, cluster_id: str) -> None:
        cluster = await self._clusters.by_id(cluster_id)
        if cluster is not None and _watched(cluster):
            _say.warning("an agent is gone; it is brought back", cluster=cluster.name)
            await self._submit("revive", cluster, {})


async def _read_events(agent: Agent, after: int, into: asyncio.Queue[Event | None]) -> None:
    """Reading and storing are apart, so that a slow disk does not look like a silent agent."""
    try:
        async for event in agent.events(after):
            into.put_nowait(event)
    finally:
        into.put_nowait(None)


def _watched(row: Any) -> bool:
    on = row.status == ClusterStatus.UP.name and row.spec["power"] == "running"
    return on and bool(row.nodes) and row.cordoned is None
