"""Who a process is, and how to end it for certain: `/proc` only, no Pulumi.

A pid alone is never trusted: an `Identity` adds the start time (field 22 of ``/proc/PID/stat``) and the boot id, so a
number that was handed out again is not mistaken for the process that had it. Sessions and environment markers find what
a process left behind. Refuses to end anything it was not given by identity, session or marker.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from skyinfra.runtime import procs
from skyinfra.runtime.identity import Identity

__all__ = [
    "Identity",
    "alive",
    "boot_id",
    "descendants",
    "end",
    "environ_has",
    "environ_hidden",
    "marked",
    "me",
    "session_members",
    "session_of",
    "wait_until",
]

POLL_S = 0.01


def boot_id() -> str:
    """This boot of the host: pids and start times mean nothing across two of them."""
    return procs.boot_id()


def me() -> Identity:
    """This process."""
    return Identity.own()


def alive(identity: Identity | None) -> bool:
    """Whether exactly this process runs; None does not."""
    return identity is not None and identity.alive


def _pids() -> Iterator[int]:
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            yield int(entry)


def environ_has(pid: int, marker: str) -> bool:
    """Whether the environment that `pid` was started with holds the line ``NAME=value``."""
    try:
        environ = Path(f"/proc/{pid}/environ").read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return False
    return marker.encode() in environ.split(b"\0")


def environ_hidden(pid: int) -> bool:
    """Whether a living process shows no environment: it is ending, or between two programs.

    (So does one that was started with none at all.)
    """
    try:
        return not Path(f"/proc/{pid}/environ").read_bytes()
    except ProcessLookupError:
        return True  # what Linux 6.18 answers for a process whose memory is gone and whose threads are not yet
    except (FileNotFoundError, PermissionError):
        return False


def _living(pids: Iterable[int], wanted: Callable[[procs.Stat], bool]) -> list[Identity]:
    seen = [stat for pid in pids if (stat := procs.read_stat(pid)) is not None]
    return [Identity(stat.pid, stat.start_ticks, boot_id()) for stat in seen if stat.live and wanted(stat)]


def marked(marker: str) -> list[Identity]:
    """Living processes whose environment has the line ``NAME=value``."""
    return _living(_pids(), lambda stat: environ_has(stat.pid, marker))


def session_members(sid: int) -> list[Identity]:
    """Living processes of a session. The kernel hands out no pid that is still a session's number."""
    return _living(_pids(), lambda stat: stat.sid == sid)


def session_of(pid: int) -> int | None:
    """The session a process is in, or None when it is gone."""
    stat = procs.read_stat(pid)
    return None if stat is None else stat.sid


def wait_until(condition: Callable[[], bool], timeout_s: float, clock: Callable[[], float] = time.monotonic) -> bool:
    """Look every 10 ms until `condition` holds; False past the deadline."""
    deadline = clock() + timeout_s
    while not condition():
        if clock() >= deadline:
            return False
        time.sleep(POLL_S)
    return True


def _signal(identity: Identity, number: int) -> None:
    if alive(identity):
        try:
            os.kill(identity.pid, number)
        except ProcessLookupError:
            pass  # it ended between the look and the signal: what was wanted


def end(find: Callable[[], list[Identity]], grace_s: float = 0.0, timeout_s: float = 10.0) -> list[Identity]:
    """Signal what `find` finds (SIGTERM, then after the grace SIGKILL) until it finds nothing. Returns what is left.

    It looks again each time: a process may have started another between the look and the signal.
    """
    if grace_s > 0:
        for identity in find():
            _signal(identity, signal.SIGTERM)
        wait_until(lambda: not find(), grace_s)
    deadline = time.monotonic() + timeout_s
    while (left := find()) and time.monotonic() < deadline:
        for identity in left:
            _signal(identity, signal.SIGKILL)
        time.sleep(POLL_S)
    return find()


def descendants(pid: int) -> list[Identity]:
    """Living children of `pid`, and theirs."""
    parents: dict[int, int] = {}
    for other in _pids():
        stat = procs.read_stat(other)
        if stat is not None:
            parents[other] = stat.ppid
    found, level = [], {pid}
    while level:
        level = {child for child, parent in parents.items() if parent in level}
        found += sorted(level)
    return _living(found, lambda _: True)
