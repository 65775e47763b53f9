"""A node's half of a job on several nodes: ranks, started and ended as the head says, told about as they change.

Works the same on a worker (frames come over its connection to the head) and on the head itself (they come from `Gangs`
next door). A rank is a row of this node's own ledger with a supervisor like any job's, so it outlives this agent and
the head's; whoever comes back finds it by its key.
"""

import asyncio
import os
import signal
import sqlite3
from typing import Any, Callable, Dict, List

from skyinfra.runtime import disk, intake, logs, procs
from skyinfra.runtime.boundary import boundary
from skyinfra.runtime.jobqueue import Demand
from skyinfra.runtime.jobs import Jobs
from skyinfra.runtime.ledger import RANK_IDS, NewJob
from skyinfra.runtime.protocol import FINAL_STATES, Frame, JobRow, RankOrder, RankState, dump, load
from skyinfra.runtime.say import say
from skyinfra.runtime.supervisor import GATE_FILE


class Ranks:
    """`tell` brings a `RankState` to the head."""

    def __init__(self, jobs: Jobs, tell: Callable[[RankState], None]) -> None:
        self._jobs, self._tell = jobs, tell
        self._ids: Dict[str, int] = {row.key: row.job_id for row in jobs.ledger.ranks()}
        self._told: Dict[int, RankState] = {}
        self._ending: "Dict[int, asyncio.Task[None]]" = {}

    def start(self, order: RankOrder) -> None:
        """Idempotent by key; answers with the state, also of a rank that has long ended."""
        if order.key not in self._ids:
            try:
                self._begin(order)
            except (OSError, ValueError, sqlite3.Error) as exc:
                say("rank {} not begun: {}".format(order.key, exc))
                self._tell(RankState(order.key, "FAILED_DRIVER", reason="it could not be begun: {}".format(exc)))
                return
        self.ask(order.key)

    def _begin(self, order: RankOrder) -> None:
        jobs = self._jobs
        boundary("rank.start.before")
        rank_id = jobs.ledger.next_rank_id()
        folder, log_path = jobs.folder(rank_id), "~/sky_logs/" + order.name
        try:
            intake.write_rank_files(folder, order)
            os.makedirs(os.path.join(jobs.node.home, "sky_logs", order.name), mode=0o700, exist_ok=True)
            jobs.ledger.insert(
                NewJob(
                    job_id=rank_id,
                    key=order.key,
                    name=order.name,
                    user=order.user,
                    resources="",
                    log_path=log_path,
                    metadata={"log": order.log},
                    demand=Demand(order.cpus, 0),
                    ranks=[{"slot": 0}],
                    task_id="",
                    has_setup=bool(order.setup),
                    has_run=bool(order.run),
                )
            )
        except BaseException:
            disk.remove_tree(folder)
            raise
        self._ids[order.key] = rank_id
        boundary("rank.start.recorded")
        jobs.start_rank(rank_id)
        boundary("rank.start.made")

    def go(self, key: str) -> None:
        """Every node is ready. Idempotent."""
        rank_id = self._ids.get(key)
        if rank_id is None or self._jobs.is_final(rank_id):
            return
        try:
            disk.write_file(os.path.join(self._jobs.folder(rank_id), GATE_FILE), b"")
        except FileNotFoundError:
            return  # it ended just now
        supervised = self._jobs.active.get(rank_id)
        if supervised is not None:
            procs.send_signal(supervised.pid, supervised.start_ticks, signal.SIGUSR2)

    def end(self, key: str) -> None:
        """Cancel it. Idempotent; the state that comes back says when it has ended."""
        rank_id = self._ids.get(key)
        if rank_id is None or self._jobs.is_final(rank_id):
            self.ask(key)
        elif rank_id not in self._ending:
            task = asyncio.get_event_loop().create_task(self._end(rank_id))
            self._ending[rank_id] = task
            task.add_done_callback(lambda _: self._ending.pop(rank_id, None))

    async def _end(self, rank_id: int) -> None:
        try:
            await self._jobs.cancel(rank_id)
        except (TimeoutError, OSError) as exc:
            say("rank {} does not end: {}".format(rank_id, exc))

    def end_all_but(self, keys: List[str]) -> None:
        """Of ranks that the head does not know any more: it has given up their jobs."""
        for key, rank_id in list(self._ids.items()):
            if key not in keys and not self._jobs.is_final(rank_id):
                self.end(key)

    def ask(self, key: str) -> None:
        rank_id = self._ids.get(key)
        row = self._jobs.ledger.row(rank_id) if rank_id is not None else None
        if row is None:
            self._tell(RankState(key))
        else:
            self._told[row.job_id] = self._state(row)
            self._tell(self._told[row.job_id])

    def look(self) -> None:
        """The slow net under hints: what is told of a rank that runs is so."""
        for rank_id in [job_id for job_id in self._jobs.active if job_id >= RANK_IDS]:
            self.changed(rank_id)

    def changed(self, rank_id: int) -> None:
        """Its row or its files have changed: tell, if it makes a difference."""
        row = self._jobs.ledger.row(rank_id)
        if row is None:
            return
        state = self._state(row)
        if self._told.get(rank_id) != state:
            self._told[rank_id] = state
            self._tell(state)

    def _state(self, row: JobRow) -> RankState:
        record = disk.read_json(os.path.join(self._jobs.folder(row.job_id), "state.json")) or {}
        ready = row.state == "SETTING_UP" and record.get("state") == "READY"
        size = logs.size_of(self._log_path(row)) if row.state in FINAL_STATES else 0
        return RankState(row.key, row.state, ready, list(row.exit_codes), row.reason, size)

    def _log_path(self, row: JobRow) -> str:
        return os.path.join(self._jobs.log_folder(row), str(row.metadata.get("log")))

    async def follow(self, key: str, offset: int, send: "Callable[[Frame, bytes], Any]") -> None:
        """Send the log from `offset` on, as it grows, to its end. `send` is awaited: a slow line holds us back."""
        rank_id = self._ids.get(key)
        row = self._jobs.ledger.row(rank_id) if rank_id is not None else None
        if row is None or rank_id is None:
            return
        path = self._log_path(row)
        async for data in logs.follow(self._jobs, rank_id, self._jobs.log_folder(row), path, offset):
            await send(Frame("log", key, offset), data)
            offset += len(data)


def handle(ranks: Ranks, frame: Frame) -> bool:
    """Carry out what the head says about ranks; False for a frame about something else."""
    if frame.kind == "start":
        ranks.start(load(RankOrder, frame.body))
    elif frame.kind == "ask":
        ranks.ask(frame.key)
    elif frame.kind == "go":
        ranks.go(frame.key)
    elif frame.kind == "end":
        ranks.end(frame.key)
    else:
        return False
    return True


def state_frame(state: RankState) -> Frame:
    return Frame("state", state.key, 0, dump(state))
