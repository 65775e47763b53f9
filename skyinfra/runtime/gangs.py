"""The head's half of a job on several nodes: all of its parts begin, one that fails ends the others, one verdict.

A gang's members are its ranks, and the setup of nodes that have none. The order that keeps it whole when this agent is
killed: placement (ledger), orders to all members (each idempotent by its key), ``go.json`` once all are ready, go;
``verdict.json`` once one has failed, end; the job is final when every member that can be heard has ended and its log is
here. A successor reads the two files, asks every member, and goes on.
"""

import asyncio
import os
import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Set

from skyinfra.runtime import disk, logs, variables
from skyinfra.runtime.boundary import boundary
from skyinfra.runtime.jobqueue import Share
from skyinfra.runtime.jobs import Jobs
from skyinfra.runtime.ledger import Plan
from skyinfra.runtime.merge import Merger
from skyinfra.runtime.protocol import FINAL_STATES, Frame, RankOrder, RankState, dump
from skyinfra.runtime.say import say

#: Exit codes of ranks that have none of their own: ended because another failed (as SkyPilot shows it), node lost.
ENDED_WITH, LOST_WITH = 137, 255
_SAFETY_S = 1.0
_NO_SHARE = Share(0.0, ())

Send = Callable[[int, Frame], None]


class Member(NamedTuple):
    """One node's part of a job."""

    key: str
    slot: int
    ip: str
    rank: Optional[int]  # None: its setup only
    share: Share
    log: str

    @property
    def node(self) -> str:
        return "head" if self.slot == 0 else "worker{}".format(self.slot)

    @property
    def place(self) -> str:
        rank = "" if self.rank is None else "rank {} on ".format(self.rank)
        return rank + self.node


class Gang:
    """One job that is being run. What it knows of its members is theirs to say again."""

    def __init__(self, plan: Plan, members: List[Member], folder: str, log_folder: str) -> None:
        self.plan, self.members, self.folder, self.log_folder = plan, members, folder, log_folder
        self.states: Dict[str, RankState] = {}
        self.lost: Dict[str, str] = {}
        self.verdict: Optional[Dict[str, Any]] = disk.read_json(os.path.join(folder, "verdict.json"))
        self.gone = os.path.exists(os.path.join(folder, "go.json"))
        self.merger = Merger(log_folder, [member.log for member in members], os.path.join(folder, "merged.json"))
        self.following: "Optional[asyncio.Task[None]]" = None

    def state(self, member: Member) -> str:
        return self.states[member.key].state if member.key in self.states else ""

    def is_over(self, member: Member) -> bool:
        """Nothing more will come from it, and what came is here."""
        if member.key in self.lost:
            return True
        return self.state(member) in FINAL_STATES and self.has_log(member)

    def has_log(self, member: Member) -> bool:
        return self.log_size(member) >= self.states[member.key].log_bytes

    def log_size(self, member: Member) -> int:
        return logs.size_of(os.path.join(self.log_folder, member.log))


class Gangs:
    """`send` brings a frame to a slot's node; what it cannot bring is said again when the node is back (`on_up`)."""

    def __init__(self, jobs: Jobs, send: Send) -> None:
        self._jobs, self._send = jobs, send
        self._gangs: Dict[int, Gang] = {}
        self._by_key: Dict[str, int] = {}

    def __contains__(self, job_id: object) -> bool:
        return job_id in self._gangs

    @property
    def running(self) -> int:
        return len(self._gangs)

    # --- begin ------------------------------------------------------------------------------------------------------

    def start(self, plan: Plan) -> None:
        """The job has its nodes, and the ledger says so."""
        boundary("gang.start.before")
        gang = self._take(plan)
        say("job {} begins on {}".format(plan.job_id, ", ".join(member.node for member in gang.members)))
        for member in gang.members:
            self._order(gang, member)
        boundary("gang.start.made")

    def reattach(self, plan: Plan, over: Optional[str]) -> None:
        """Of an agent before this one. `over`: why nothing of it can run any more."""
        gang = self._take(plan)
        if over is not None:
            gang.lost = {member.key: over for member in gang.members}
            self._judge(gang, "FAILED_DRIVER", over)
        elif plan.cancel_at is not None:
            self.end(plan.job_id, "CANCELLED", "cancelled")
        for member in gang.members:
            if member.key not in gang.lost:
                self._order(gang, member)
        self._look_soon(plan.job_id)

    def _take(self, plan: Plan) -> Gang:
        jobs = self._jobs
        log_folder = os.path.join(jobs.node.home, plan.log_path[2:])
        os.makedirs(log_folder, mode=0o700, exist_ok=True)
        gang = Gang(plan, self._members(plan), jobs.folder(plan.job_id), log_folder)
        self._gangs[plan.job_id] = gang
        for member in gang.members:
            self._by_key[member.key] = plan.job_id
        gang.following = asyncio.get_event_loop().create_task(self._merge(gang))
        return gang

    def _members(self, plan: Plan) -> List[Member]:
        ips = {entry["slot"]: str(entry["ip"]) for entry in self._jobs.config.node_table}
        found = []
        for rank, (slot, share) in enumerate(plan.placement or ()):
            key = "{}/{}/rank-{}".format(plan.job_id, plan.attempt, rank)
            found.append(Member(key, slot, ips.get(slot, ""), rank, share, "rank-{}.log".format(rank)))
        taking_part = {member.slot for member in found}
        for slot in sorted(set(ips) - taking_part) if plan.has_setup else ():
            key = "{}/{}/setup-{}".format(plan.job_id, plan.attempt, slot)
            found.append(Member(key, slot, ips[slot], None, _NO_SHARE, "setup-{}.log".format(slot)))
        prefix = plan.task_id + "/"  # unique on this cluster, whatever becomes of the ledger
        return [member._replace(key=prefix + member.key) for member in found]

    def _order(self, gang: Gang, member: Member) -> None:
        """Tell the member's node; once it has the order, only ask."""
        given = disk.read_json(os.path.join(gang.folder, "env.json"))
        if gang.verdict is not None:
            self._send(member.slot, Frame("end", member.key))  # answered with its state, also where it never began
        elif given is None or gang.state(member):
            self._send(member.slot, Frame("ask", member.key))
        else:
            self._send(member.slot, Frame("start", member.key, 0, dump(self._order_of(gang, member, given))))
        if member.slot != 0:
            self._send(member.slot, Frame("follow", member.key, gang.log_size(member)))
        if gang.verdict is None and gang.gone:
            self._send(member.slot, Frame("go", member.key))

    def _order_of(self, gang: Gang, member: Member, given: Dict[str, Any]) -> RankOrder:
        plan, config = gang.plan, self._jobs.config
        own = given["ranks"][member.rank] if member.rank is not None else {}
        ips = [one.ip for one in gang.members if one.rank is not None]
        several = len(ips) > 1
        where = "" if member.slot == 0 else ", ip={}".format(member.ip)
        label = "({}, rank={}, pid={{pid}}{}) ".format(member.node, member.rank, where)
        if not several:
            label = "({}, pid={{pid}}) ".format(variables.label(plan.name))
        return RankOrder(
            key=member.key,
            name=os.path.basename(gang.log_folder),
            log=member.log,
            labels={"setup": "(setup, pid={{pid}}{}) ".format(where), "run": label},
            setup=given["setup"],
            run=given["run"] if member.rank is not None else None,
            user=plan.user,
            envs={**given["all"], **own},
            setup_env=variables.setup_variables(plan, config, self._jobs.node, member.slot),
            run_env=variables.run_variables(plan, member.rank or 0, config, ips, member.share),
            cpus=member.share.cpus,
            devices=[list(device) for device in member.share.devices],
        )

    # --- hear -------------------------------------------------------------------------------------------------------

    def on_state(self, slot: int, state: RankState) -> None:
        gang, member = self._find(slot, state.key)
        if gang is None or member is None:
            return
        if not state.state:  # asked for what was begun there, or ended what was not
            gang.lost.setdefault(member.key, "it has lost its part of the job")
        else:
            gang.states[member.key] = state
        self._look_soon(gang.plan.job_id)

    def on_log(self, slot: int, key: str, offset: int, data: bytes) -> None:
        """Append what is new of it. The file's size is how much we have."""
        gang, member = self._find(slot, key)
        if gang is None or member is None:
            return
        path = os.path.join(gang.log_folder, member.log)
        size = logs.size_of(path)
        if offset > size:
            self._send(slot, Frame("follow", key, size))
            return
        fresh = data[size - offset :]
        if fresh:
            try:
                _append(path, fresh)
            except OSError as exc:  # a full disk: what did not get in is asked for again
                say("job {}: {} is not written: {}".format(gang.plan.job_id, member.log, exc))
                self._jobs.later(lambda: self._send(slot, Frame("follow", key, logs.size_of(path))))
        if member.key in gang.states:
            self._look_soon(gang.plan.job_id)

    def on_up(self, slot: int) -> None:
        """A worker is connected, perhaps again: say everything once more. What it runs beyond that, it ends."""
        wanted = [m.key for gang in self._gangs.values() for m in gang.members if m.key not in gang.lost]
        self._send(slot, Frame("welcome", body={"keys": wanted}))
        for gang in self._gangs.values():
            for member in gang.members:
                if member.slot == slot and member.key not in gang.lost:
                    self._order(gang, member)

    def lose(self, slot: int, why: str) -> None:
        """A worker was not heard for too long."""
        for job_id, gang in self._gangs.items():
            for member in gang.members:
                if member.slot == slot and not gang.is_over(member):
                    gang.lost[member.key] = why
                    self._look_soon(job_id)

    def _find(self, slot: int, key: str) -> "tuple[Optional[Gang], Optional[Member]]":
        gang = self._gangs.get(self._by_key.get(key, 0))
        for member in gang.members if gang is not None else ():
            if member.key == key and member.slot == slot:
                return gang, member
        return None, None

    # --- decide -----------------------------------------------------------------------------------------------------

    def _look_soon(self, job_id: int) -> None:
        asyncio.get_event_loop().call_soon(self._look, job_id)

    def _look(self, job_id: int) -> None:
        gang = self._gangs.get(job_id)
        if gang is None:
            return
        try:
            self._look_at(gang)
        except OSError as exc:  # a full disk: nothing was decided
            say("job {}: {}".format(job_id, exc))
            self._jobs.later(lambda: self._look(job_id))

    def _look_at(self, gang: Gang) -> None:
        members = gang.members
        states = [gang.state(member) for member in members]
        if all(states):
            disk.remove_file(os.path.join(gang.folder, "env.json"))  # each node has its own now
        self._note_begin(gang, states)
        failed = self._first_failure(gang)
        if gang.verdict is None and failed is not None:
            self._judge(gang, *failed)
        if gang.verdict is None and not gang.gone and self._all_ready(gang):
            self._go(gang)
        if all(gang.is_over(member) for member in members):
            gang.merger.move({member.log for member in members})
            self._finish(gang)

    def _note_begin(self, gang: Gang, states: List[str]) -> None:
        """The job's row follows its members: SETTING_UP with the first, RUNNING with all."""
        row = self._jobs.ledger.row(gang.plan.job_id)
        if row is None:
            return
        if row.state == "PENDING" and gang.plan.has_setup and any(state not in ("", "PENDING") for state in states):
            self._jobs.ledger.move(gang.plan.job_id, "PENDING", "SETTING_UP")
        elif gang.gone and row.state in ("PENDING", "SETTING_UP"):
            self._jobs.ledger.move(gang.plan.job_id, row.state, "RUNNING", started_at=gang_started(gang))

    def _first_failure(self, gang: Gang) -> "Optional[tuple[str, str]]":
        for member in gang.members:
            if member.key in gang.lost:
                return "FAILED", "{} was lost: {}".format(_with_ip(member), gang.lost[member.key])
            state = gang.states.get(member.key)
            if state is None or state.state not in FINAL_STATES or state.state == "SUCCEEDED":
                continue
            code = state.exit_codes[-1] if state.exit_codes else None
            why = state.reason or ("exit code {}".format(code) if code is not None else "it failed")
            final = "FAILED" if state.state == "CANCELLED" else state.state
            return final, "{}: {}".format(member.place, why)
        return None

    def _all_ready(self, gang: Gang) -> bool:
        for member in gang.members:
            state = gang.states.get(member.key)
            if state is None or not (state.ready or state.state == "SUCCEEDED"):
                return False
        return gang.plan.has_run

    def _go(self, gang: Gang) -> None:
        boundary("gang.go.before")
        disk.replace_json(os.path.join(gang.folder, "go.json"), {"at": time.time()})
        gang.gone = True
        boundary("gang.go.recorded")
        self._note_begin(gang, [])
        for member in gang.members:
            if member.rank is not None:
                self._send(member.slot, Frame("go", member.key))
        boundary("gang.go.made")

    def end(self, job_id: int, state: str, reason: str) -> None:
        """End it from outside. A verdict that was reached before stays."""
        gang = self._gangs.get(job_id)
        if gang is not None and gang.verdict is None:
            self._judge(gang, state, reason)
            self._look_soon(job_id)

    def abandon(self, reason: str) -> None:
        """The node goes away with all its jobs: nobody is waited for."""
        for job_id, gang in list(self._gangs.items()):
            self.end(job_id, "FAILED_DRIVER", reason)
            for member in gang.members:
                gang.lost.setdefault(member.key, reason)
            self._look(job_id)

    def _judge(self, gang: Gang, state: str, reason: str) -> None:
        boundary("gang.end.before")
        running = [member for member in gang.members if gang.state(member) not in FINAL_STATES]
        ended = [member.key for member in running if member.key not in gang.lost]
        gang.verdict = {"state": state, "reason": reason, "ended": ended}
        disk.replace_json(os.path.join(gang.folder, "verdict.json"), gang.verdict)
        boundary("gang.end.recorded")
        for member in running:
            self._send(member.slot, Frame("end", member.key))
        boundary("gang.end.made")

    def _finish(self, gang: Gang) -> None:
        verdict = gang.verdict or {"state": "SUCCEEDED", "reason": "", "ended": []}
        state = verdict["state"]
        row = self._jobs.ledger.row(gang.plan.job_id)
        if row is not None and row.state == "PENDING" and state in ("SUCCEEDED", "FAILED", "FAILED_SETUP"):
            self._jobs.ledger.move(gang.plan.job_id, "PENDING", "SETTING_UP")
        if row is not None and row.state in ("PENDING", "SETTING_UP") and state == "FAILED":
            self._jobs.ledger.move(gang.plan.job_id, "SETTING_UP", "RUNNING")
        codes = [code for member in gang.members for code in self._codes(gang, member, state, verdict["ended"])]
        self._jobs.finish(gang.plan.job_id, state, reason=verdict["reason"], exit_codes=codes)

    def _codes(self, gang: Gang, member: Member, state: str, ended: List[str]) -> List[int]:
        """At most one per member; of setup-only ones when it was setup that failed."""
        if member.rank is None and state != "FAILED_SETUP":
            return []
        if member.key in ended and state in ("FAILED", "FAILED_SETUP"):
            return [ENDED_WITH]
        if member.key in gang.lost:
            return [LOST_WITH]
        return gang.states[member.key].exit_codes[-1:]

    def forget(self, job_id: int) -> None:
        """It is final. Idempotent."""
        gang = self._gangs.pop(job_id, None)
        if gang is not None:
            for member in gang.members:
                self._by_key.pop(member.key, None)
            if gang.following is not None:
                gang.following.cancel()

    # --- logs -------------------------------------------------------------------------------------------------------

    async def _merge(self, gang: Gang) -> None:
        with self._jobs.watch.log(gang.plan.job_id, gang.log_folder) as wake:
            while True:
                wake.clear()
                ended: Set[str] = {member.log for member in gang.members if gang.is_over(member)}
                try:
                    gang.merger.move(ended)
                except OSError as exc:
                    say("job {}: its logs are not merged yet: {}".format(gang.plan.job_id, exc))
                if any(gang.state(member) in FINAL_STATES for member in gang.members):
                    self._look_soon(gang.plan.job_id)
                await wake.wait(_SAFETY_S)


def gang_started(gang: Gang) -> float:
    """When all were told to run."""
    record = disk.read_json(os.path.join(gang.folder, "go.json")) or {}
    return float(record.get("at") or time.time())


def _with_ip(member: Member) -> str:
    return "{} ({})".format(member.node, member.ip) if member.ip else member.node


def _append(path: str, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        disk.write_all(fd, data)
    finally:
        os.close(fd)
