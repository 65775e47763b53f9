"""The job use cases: submit, start, notice, finish, cancel.

The order that makes a job run at most once: files, ledger row, intent (attempt n), supervisor's record of attempt
n, job. `Jobs` lives in the agent's one thread. It never starts a job itself; it asks the zygote, and believes the
files. Re-attaching after a restart is in `recovery.py`, which uses the same `settle`. A job on several nodes is
handed to `Gangs` once it has its nodes; each node's part of it comes back here as a rank's row (`start_rank`).
"""

import asyncio
import os
import signal
import sqlite3
import time
from typing import TYPE_CHECKING, Any, Callable, Dict, NamedTuple, Optional, Set

from skyinfra.runtime import disk, intake, procs, variables
from skyinfra.runtime.boundary import boundary
from skyinfra.runtime.jobqueue import Demand, JobQueue, Placement
from skyinfra.runtime.kill import end_job
from skyinfra.runtime.ledger import RANK_IDS, Ledger, NewJob, Plan
from skyinfra.runtime.protocol import FINAL_STATES, JobRow, JobSubmit, NodeConfig
from skyinfra.runtime.say import say
from skyinfra.runtime.supervisor import record_name
from skyinfra.runtime.variables import Node
from skyinfra.runtime.watch import Watch

if TYPE_CHECKING:
    from skyinfra.runtime.gangs import Gangs

RETRY_S = 1.0
#: Attempts that ended before anything ran; then the job is given up.
MAX_ATTEMPTS = 5
STOPPED_BEFORE = "the node was stopped before the job ran"
_CANCEL_AGAIN_S = 8.0
_CANCEL_HANGS_S = 15.0
_CANCEL_WAIT_S = 60.0


class Draining(Exception):
    """New jobs are refused."""


class Supervised(NamedTuple):
    """A supervisor that we watch."""

    pid: int
    start_ticks: int
    pidfd: int  # -1: this kernel has none, `sweep` looks


class Jobs:
    gangs: "Gangs"
    """Set by the agent before anything is submitted."""

    def __init__(self, node: Node, ledger: Ledger, queue: JobQueue, watch: Watch, bash: str) -> None:
        self.node, self.ledger, self.queue, self.watch, self.bash = node, ledger, queue, watch, bash
        self.config = NodeConfig()
        self.drain_reason: Optional[str] = ledger.meta("drain")
        self.waiting: Dict[int, Demand] = {}  # oldest first
        self.active: Dict[int, Optional[Supervised]] = {}  # intended or running; None: its supervisor is not known yet
        self._settling: Dict[int, "asyncio.Task[None]"] = {}
        self._delayed: Set[int] = set()  # waiting for a later try
        self.not_again: Set[int] = set()  # of before the node's stop: an attempt that never began is the last
        self.idle_since, self.idle_from = time.time(), time.monotonic()
        self.send_order: Callable[[Dict[str, Any]], None] = _no_zygote
        self._kicked = False

    # --- submit -----------------------------------------------------------------------------------------------------

    def submit(self, req: JobSubmit) -> int:
        """The job's id; the same key gives the same id. Raises `Draining`, `ValueError`, `OSError`, `sqlite3.Error`."""
        known = self.ledger.id_for_key(req.key)
        if known is not None:
            return known
        if self.drain_reason is not None:
            raise Draining(self.drain_reason)
        demand = intake.check(req, self.queue)
        boundary("agent.submit.before")
        job_id = self.ledger.next_id()
        folder = self.folder(job_id)
        log_name = intake.log_name(job_id, req.name)
        try:
            intake.write_files(folder, req)
            os.makedirs(os.path.join(self.node.home, "sky_logs", log_name), mode=0o700, exist_ok=True)
            accelerator = str(req.metadata.get("accelerator") or "")
            self.ledger.insert(
                NewJob(
                    job_id=job_id,
                    key=req.key,
                    name=req.name,
                    user=req.user,
                    resources=variables.resources_text(req.ranks, demand.cpus, demand.gpus, accelerator),
                    log_path="~/sky_logs/" + log_name,
                    metadata=req.metadata,
                    demand=demand,
                    ranks=[{"slot": r.get("slot", 0), "ip": r.get("ip", "")} for r in req.ranks],
                    task_id=variables.task_id(req.task_id, self.config, job_id, time.time()),
                    has_setup=bool(req.setup),
                    has_run=bool(req.run),
                )
            )
        except BaseException:
            disk.remove_tree(folder)
            raise
        boundary("agent.submit.recorded")
        self.waiting[job_id] = demand
        self.kick()
        return job_id

    # --- start ------------------------------------------------------------------------------------------------------

    def kick(self) -> None:
        """Look at the queue once the current callback is done."""
        if not self._kicked:
            self._kicked = True
            asyncio.get_event_loop().call_soon(self._schedule)

    def _schedule(self) -> None:
        self._kicked = False
        for job_id, placement in self.queue.pick(self.waiting):
            del self.waiting[job_id]
            self._try_start(job_id, placement)

    def start_rank(self, rank_id: int) -> None:
        """Start a rank whose row and files are there: its head has reserved the node's share of it."""
        self._try_start(rank_id, ((0, intake.rank_share(self.folder(rank_id))),))

    def _try_start(self, job_id: int, placement: Placement) -> None:
        try:
            self._start(job_id, placement)
        except (sqlite3.Error, OSError) as exc:
            self.queue.release(job_id)
            self.active.pop(job_id, None)
            say("job {} waits: {}".format(job_id, exc))
            self._requeue_in(job_id, RETRY_S)
        except ValueError as exc:
            self.finish(job_id, "FAILED_DRIVER", reason=str(exc))

    def _start(self, job_id: int, placement: Placement) -> None:
        plan = self.ledger.plan(job_id)
        if plan is None or plan.state != "PENDING":
            self.queue.release(job_id)
            return
        attempt = plan.attempt + 1
        boundary("agent.spawn.before")
        if not self.ledger.intend(job_id, attempt, placement):
            self.queue.release(job_id)
            return
        if plan.is_gang:
            self.gangs.start(plan._replace(attempt=attempt, placement=placement))
            return
        self.active[job_id] = None
        folder, inherited, share = self.folder(job_id), os.environ, placement[0][1]
        self.send_order(intake.spawn_order(plan, attempt, share, self.node, self.config, self.bash, folder, inherited))
        boundary("agent.spawn.made")

    # --- notice -----------------------------------------------------------------------------------------------------

    def on_report(self, report: Dict[str, Any]) -> None:
        """The zygote forked a supervisor, or could not."""
        job_id = report["job_id"]
        if job_id not in self.active:
            return
        if "error" in report:
            say("job {} waits, no process for it: {}".format(job_id, report["error"]))
            self.later(lambda: self.settle(job_id))
        elif self.active[job_id] is None:
            self.attach(job_id, report["pid"], procs.start_ticks(report["pid"]))

    def on_hint(self, hint: Dict[str, Any]) -> None:
        job_id = hint.get("job_id")
        if isinstance(job_id, int) and job_id in self.active:
            self.sync(job_id)

    def on_zygote_death(self) -> None:
        """Orders without a supervisor may have died with it."""
        for job_id, supervised in list(self.active.items()):
            if supervised is None:
                self.settle(job_id)

    def attach(self, job_id: int, pid: int, ticks: int) -> None:
        """Watch a supervisor; one that is gone already is settled."""
        if not procs.alive(pid, ticks):
            self.active[job_id] = Supervised(pid, ticks, -1)
            self.settle(job_id)
            return
        pidfd = -1
        try:
            pidfd = procs.open_pidfd(pid)
            asyncio.get_event_loop().add_reader(pidfd, self._on_end, job_id)
        except OSError as exc:
            # gone since (the sweep settles it), or a kernel before 5.3: hints and the sweep must do
            say("job {}: no pidfd: {}".format(job_id, exc))
        self.active[job_id] = Supervised(pid, ticks, pidfd)
        plan = self.ledger.plan(job_id)
        if plan is not None and plan.cancel_at is not None:
            procs.send_signal(pid, ticks, signal.SIGTERM)

    def _on_end(self, job_id: int) -> None:
        self._unwatch(job_id)
        self.settle(job_id)

    def sync(self, job_id: int) -> bool:
        """Bring the ledger up to what the job's files say. True: the job is final."""
        try:
            return self._sync(job_id)
        except (sqlite3.Error, OSError) as exc:  # a full disk: the files stay, so it can be done again
            say("job {} not recorded yet: {}".format(job_id, exc))
            self.later(lambda: job_id in self.active and self.sync(job_id))
            return False

    def _sync(self, job_id: int) -> bool:
        plan = self.ledger.plan(job_id)
        if plan is None or plan.state in FINAL_STATES:
            return True
        folder, state = self.folder(job_id), plan.state
        if state == "PENDING" and plan.attempt:
            record = disk.read_json(os.path.join(folder, record_name(plan.attempt)))
            if record is None or not record["pid"]:
                return False
            state = record["state"]
            started = {"started_at": record["started_at"]} if state == "RUNNING" else {}
            self.ledger.move(job_id, "PENDING", state, pid=record["pid"], **started)
            boundary("agent.spawn.recorded")
        if state == "SETTING_UP":
            record = disk.read_json(os.path.join(folder, "state.json"))
            if record is not None and record["state"] == "RUNNING":
                state = "RUNNING"
                self.ledger.move(job_id, "SETTING_UP", state, started_at=record["started_at"])
        record = disk.read_json(os.path.join(folder, "exit.json"))
        if record is None:
            return False
        fields = {name: record[name] for name in ("reason", "exit_codes", "ended_at")}
        return self._finish(job_id, state, record["state"], **fields)

    def settle(self, job_id: int) -> None:
        """No supervisor works on this job any more, or none ever did: find out which, and act."""
        if job_id in self._settling or self.sync(job_id):
            return
        task = asyncio.get_event_loop().create_task(self._settle(job_id))
        self._settling[job_id] = task
        task.add_done_callback(lambda done: self._settled(job_id, done))

    def _settled(self, job_id: int, done: "asyncio.Task[None]") -> None:
        self._settling.pop(job_id, None)
        if not done.cancelled() and done.exception() is not None:  # a full disk or a dying one: not lost, tried again
            say("job {} not settled yet: {!r}".format(job_id, done.exception()))
            self.later(lambda: self.settle(job_id))

    async def _settle(self, job_id: int) -> None:
        plan = self.ledger.plan(job_id)
        if plan is None or plan.state in FINAL_STATES:
            return
        path = os.path.join(self.folder(job_id), record_name(plan.attempt))
        # from here on no late supervisor can begin this attempt
        if disk.claim_json(path, {"pid": 0}) or not (disk.read_json(path) or {"pid": 0})["pid"]:
            self._begin_again(plan)
            return
        record = disk.read_json(path) or {}
        pid, ticks = record["pid"], record["start_ticks"]
        if record["boot_id"] == procs.boot_id() and procs.alive(pid, ticks):
            self.attach(job_id, pid, ticks)
            return
        ended = await asyncio.get_event_loop().run_in_executor(None, end_job, self.node.state_folder, job_id, pid)
        if not self.sync(job_id):
            reason = "its supervisor (pid {}) died; {} of its processes were ended".format(pid, len(ended))
            plan = self.ledger.plan(job_id)
            wanted = plan is not None and plan.cancel_at is not None
            self.finish(job_id, "CANCELLED" if wanted else "FAILED_DRIVER", reason=reason)

    def _begin_again(self, plan: Plan) -> None:
        """The attempt never began."""
        self.queue.release(plan.job_id)
        self.active.pop(plan.job_id, None)
        if plan.cancel_at is not None:
            self.finish(plan.job_id, "CANCELLED", reason="cancelled")
        elif plan.job_id in self.not_again:
            self.finish(plan.job_id, "FAILED_DRIVER", reason=STOPPED_BEFORE)
        elif plan.attempt >= MAX_ATTEMPTS:
            self.finish(plan.job_id, "FAILED_DRIVER", reason="no supervisor could be started for it")
        else:
            self.ledger.withdraw(plan.job_id, plan.attempt)
            # a first failure is an accident (its zygote died), a second may be a sick node
            self._requeue_in(plan.job_id, 0.0 if plan.attempt == 1 else RETRY_S)

    def _requeue_in(self, job_id: int, delay_s: float) -> None:
        self._delayed.add(job_id)
        self.later(lambda: self.requeue(job_id), delay_s)

    def requeue(self, job_id: int) -> None:
        """Back into the queue, at its place."""
        self._delayed.discard(job_id)
        plan = self.ledger.plan(job_id)
        if plan is None or plan.state != "PENDING" or job_id in self.active:
            return
        if job_id >= RANK_IDS:
            self.start_rank(job_id)
        else:
            self.waiting[job_id] = plan.demand
            self.waiting = dict(sorted(self.waiting.items()))
            self.kick()

    def sweep(self) -> None:
        """The slow net under hints and pidfds; the agent calls it every second."""
        for job_id, supervised in list(self.active.items()):
            if supervised is None or job_id in self._settling:
                continue
            row = self.ledger.row(job_id)
            if row is not None and row.state in ("PENDING", "SETTING_UP") and self.sync(job_id):
                continue
            if supervised.pidfd < 0 and not procs.alive(supervised.pid, supervised.start_ticks):
                self.settle(job_id)

    # --- finish and cancel ------------------------------------------------------------------------------------------

    def finish(self, job_id: int, state: str, **fields: Any) -> bool:
        """Make the job final from whatever it is now; again later when it cannot be written."""
        try:
            row = self.ledger.row(job_id)
            return row is None or row.state in FINAL_STATES or self._finish(job_id, row.state, state, **fields)
        except (sqlite3.Error, OSError) as exc:
            say("job {} not recorded as {} yet: {}".format(job_id, state, exc))
            self.later(lambda: self.finish(job_id, state, **fields))
            return False

    def _finish(self, job_id: int, seen: str, state: str, **fields: Any) -> bool:
        boundary("agent.finish.before")
        row = self.ledger.move(job_id, seen, state, **fields)
        boundary("agent.finish.recorded")
        self.gangs.forget(job_id)
        self._unwatch(job_id)
        self.active.pop(job_id, None)
        self.waiting.pop(job_id, None)
        self.queue.release(job_id)
        if self.idle:
            self.idle_since, self.idle_from = time.time(), time.monotonic()
        self.kick()
        disk.remove_tree(self.folder(job_id))  # scripts and, if it never ran, its secrets
        return row is not None

    async def cancel(self, job_id: int) -> JobRow:
        """End the job; returns when it has ended. Idempotent. Raises `KeyError` for an unknown id, `TimeoutError`."""
        row = self.ledger.row(job_id)
        if row is None:
            raise KeyError(job_id)
        if row.state not in FINAL_STATES:
            boundary("agent.cancel.before")
            self.ledger.want_cancel(job_id)
            boundary("agent.cancel.recorded")
            if job_id in self.gangs:
                self.gangs.end(job_id, "CANCELLED", "cancelled")
            elif job_id not in self.active:  # waiting: nothing runs
                self.finish(job_id, "CANCELLED", reason="cancelled")
        deadline = time.monotonic() + _CANCEL_WAIT_S
        while not self.is_final(job_id):
            if time.monotonic() > deadline:
                raise TimeoutError("job {} does not end".format(job_id))
            supervised = self.active.get(job_id)
            if supervised is not None:
                # a supervisor that does nothing for so long hangs: without it `settle` ends the job
                hangs = time.monotonic() > deadline - _CANCEL_WAIT_S + _CANCEL_HANGS_S
                number = signal.SIGKILL if hangs else signal.SIGTERM
                procs.send_signal(supervised.pid, supervised.start_ticks, number)
                boundary("agent.cancel.made")
            await self.wait_final(job_id, _CANCEL_AGAIN_S)
        row = self.ledger.row(job_id)
        assert row is not None  # rows are never removed
        return row

    async def stop_all(self) -> None:
        """End every job because the node goes away."""
        for job_id in list(self.waiting):
            self.finish(job_id, "FAILED_DRIVER", reason=STOPPED_BEFORE)
        self.gangs.abandon("the node was stopped while the job ran")
        while self.active:
            for job_id, supervised in list(self.active.items()):
                if supervised is not None:
                    procs.send_signal(supervised.pid, supervised.start_ticks, signal.SIGUSR1)
                await self.wait_final(job_id, _CANCEL_AGAIN_S)

    def is_final(self, job_id: int) -> bool:
        row = self.ledger.row(job_id)
        return row is None or row.state in FINAL_STATES

    async def wait_final(self, job_id: int, timeout_s: float) -> None:
        """Until the job is final or the time is over."""
        deadline = time.monotonic() + timeout_s
        with self.watch.job(job_id) as changed:
            while not self.is_final(job_id) and time.monotonic() < deadline:
                changed.clear()
                await changed.wait(deadline - time.monotonic())

    # --- small things -----------------------------------------------------------------------------------------------

    def drain(self, reason: Optional[str]) -> None:
        """None: accept jobs again. Survives a restart of the agent."""
        self.ledger.set_meta("drain", reason)
        self.drain_reason = reason

    @property
    def idle(self) -> bool:
        return not (self.active or self.waiting or self._delayed or self.gangs.running)

    def folder(self, job_id: int) -> str:
        return os.path.join(self.node.state_folder, "jobs", str(job_id))

    def later(self, action: Callable[[], Any], delay_s: float = RETRY_S) -> None:
        asyncio.get_event_loop().call_later(delay_s, action)

    def log_folder(self, row: JobRow) -> str:
        return os.path.join(self.node.home, row.log_path[2:])

    def _unwatch(self, job_id: int) -> None:
        supervised = self.active.get(job_id)
        if supervised is not None and supervised.pidfd >= 0:
            asyncio.get_event_loop().remove_reader(supervised.pidfd)
            os.close(supervised.pidfd)
            self.active[job_id] = supervised._replace(pidfd=-1)


def _no_zygote(order: Dict[str, Any]) -> None:
    raise OSError("no zygote")
