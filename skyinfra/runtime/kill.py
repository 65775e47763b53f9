"""Ending everything that belongs to one state folder, and saying what it is: the ``kill`` and ``status`` commands.

*Kill* ends the work, in contrast to the agent's shutdown (SIGTERM), which leaves the jobs running. Kill believes
/proc, not the ledger: it goes on until a scan by marker, record and descent finds nothing.
"""

import fcntl
import json
import os
import signal
import time
from typing import Any, Dict, Set

from skyinfra.runtime import disk, procs
from skyinfra.runtime.boundary import boundary
from skyinfra.runtime.variables import JOB_MARKER, STATE_MARKER, job_marker

#: After the SIGKILLs: how long a process may take to disappear before it is reported as left.
_GONE_S = 10.0
_POLL_S = 0.02


def status(state: str) -> Dict[str, Any]:
    """`{alive, pid, …}`: agent.json, and whether that very process lives."""
    record = disk.read_json(os.path.join(state, "agent.json")) or {}
    return {"pid": 0, **record, "alive": _lives(record)}


def kill(state: str, grace_s: float) -> Dict[str, Any]:
    """End agent, zygote, supervisors and jobs. `{"killed": n, "left": [{pid, name}]}`. Idempotent."""
    touched: Set[int] = set()
    boundary("agent.kill.before")
    lock = _end_agent(state, grace_s, touched)
    boundary("agent.kill.made")
    try:
        # supervisors first: they end their jobs themselves and write down how
        for pid, ticks in _supervisors(state).items():
            if procs.send_signal(pid, ticks, signal.SIGUSR1):
                touched.add(pid)
        deadline = time.monotonic() + grace_s
        while time.monotonic() < deadline and any(procs.alive(p, t) for p, t in _supervisors(state).items()):
            time.sleep(_POLL_S)
        touched |= procs.end_all(lambda: _find(state), max(0.0, deadline - time.monotonic()))
        left = _find(state)
    finally:
        if lock >= 0:
            os.close(lock)
    return {"killed": len(touched - set(left)), "left": [{"pid": p.pid, "name": p.name} for p in left.values()]}


def end_job(state: str, job_id: int, supervisor_pid: int) -> Set[int]:
    """Everything a killed supervisor left: by session, by marker, and what descends from those. Blocks.

    Raises `OSError` while something of it is still there.
    """
    marker = "{}={}".format(JOB_MARKER, job_marker(state, job_id)).encode()

    def find() -> Dict[int, procs.Stat]:
        table = procs.snapshot()
        roots = {p.pid for p in table.values() if p.sid == supervisor_pid and p.pid != supervisor_pid}
        roots |= procs.marked(marker, table)
        return {pid: table[pid] for pid in procs.family(roots, table)}

    ended = procs.end_all(find, procs.TERM_GRACE_S)
    if find():
        raise OSError("processes of job {} do not end".format(job_id))
    return ended


def _end_agent(state: str, grace_s: float, touched: Set[int]) -> int:
    """End the agent and hold its lock, so that no other starts meanwhile. -1: there is no state folder."""
    try:
        lock = os.open(os.path.join(state, "agent.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    except FileNotFoundError:
        return -1
    kill_at = time.monotonic() + grace_s
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
        except BlockingIOError:
            pass
        if time.monotonic() > kill_at + _GONE_S:
            return lock  # its holder cannot be found: the scan reports what is left
        # read anew each time: the holder writes its record just after taking the lock
        record = disk.read_json(os.path.join(state, "agent.json")) or {}
        if _lives(record):
            number = signal.SIGKILL if time.monotonic() > kill_at else signal.SIGTERM
            if number == signal.SIGKILL or record["pid"] not in touched:
                procs.send_signal(record["pid"], record["start_ticks"], number)
            touched.add(record["pid"])
        time.sleep(_POLL_S)


def _find(state: str) -> Dict[int, procs.Stat]:
    """Every process of the state folder that lives, but us and those who called us."""
    table = procs.snapshot()
    roots = procs.marked("{}={}".format(STATE_MARKER, state).encode(), table)
    record = disk.read_json(os.path.join(state, "agent.json")) or {}
    if _lives(record):
        roots.add(record["pid"])
    roots |= {pid for pid, ticks in _supervisors(state).items() if procs.alive(pid, ticks)}
    found = procs.family(roots, table) - _callers(table)
    return {pid: table[pid] for pid in found}


def _callers(table: Dict[int, procs.Stat]) -> Set[int]:
    """This process and its ancestors: a job may ask for the end of its own node, and must not end the asking."""
    callers, pid = set(), os.getpid()
    while pid in table and pid not in callers:
        callers.add(pid)
        pid = table[pid].ppid
    return callers


def _supervisors(state: str) -> Dict[int, int]:
    """pid → start ticks, of every record of this boot of the machine."""
    found: Dict[int, int] = {}
    root = os.path.join(state, "jobs")
    boot = procs.boot_id()
    for job in _names(root):
        for name in _names(os.path.join(root, job)):
            if name.startswith("supervisor-") and name.endswith(".json"):
                record = disk.read_json(os.path.join(root, job, name)) or {}
                if record.get("pid") and record.get("boot_id") == boot:
                    found[record["pid"]] = record["start_ticks"]
    return found


def _names(folder: str) -> "list[str]":
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _lives(record: Dict[str, Any]) -> bool:
    return (
        bool(record.get("pid"))
        and record.get("boot_id") == procs.boot_id()
        and procs.alive(record["pid"], record["start_ticks"])
    )


def main_kill(state: str, grace_s: float) -> int:
    result = kill(os.path.abspath(state), grace_s)
    print(json.dumps(result))
    return 1 if result["left"] else 0


def main_status(state: str) -> int:
    print(json.dumps(status(os.path.abspath(state))))
    return 0
