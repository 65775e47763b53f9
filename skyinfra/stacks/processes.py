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
from dataclasses import asdict, dataclass
from pathlib import Path

__all__ = [
    "Identity",
    "alive",
    "boot_id",
    "descendants",
    "end",
    "environ_has",
    "marked",
    "me",
    "session_members",
    "session_of",
    "wait_until",
]

POLL_S = 0.01


def boot_id() -> str:
    """This boot of the host: pids and start times mean nothing across two of them."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _stat(pid: int) -> list[str] | None:
    """Fields 3 and on of ``/proc/PID/stat`` (the name, field 2, may hold spaces), or None."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    return text[text.rindex(")") + 2 :].split()


@dataclass(frozen=True)
class Identity:
    """One process, never another that later gets its number."""

    pid: int
    start_ticks: int
    boot_id: str

    @classmethod
    def of(cls, pid: int) -> Identity | None:
        """The process that has this number now, or None."""
        fields = _stat(pid)
        return None if fields is None else cls(pid, int(fields[19]), boot_id())

    @classmethod
    def from_json(cls, value: dict) -> Identity | None:
        """None when the record is incomplete (an old or torn file)."""
        try:
            return cls(int(value["pid"]), int(value["start_ticks"]), str(value["boot_id"]))
        except (KeyError, TypeError, ValueError):
            return None

    def to_json(self) -> dict:
        return asdict(self)


def me() -> Identity:
    """This process."""
    identity = Identity.of(os.getpid())
    assert identity is not None, "/proc does not know this process"
    return identity


def alive(identity: Identity | None) -> bool:
    """Whether exactly this process runs; a zombie does not."""
    if identity is None or identity.boot_id != boot_id():
        return False
    fields = _stat(identity.pid)
    return fields is not None and int(fields[19]) == identity.start_ticks and fields[0] not in "ZX"


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


def _living(pids: Iterable[int], wanted: Callable[[int, list[str]], bool]) -> list[Identity]:
    found = []
    boot = boot_id()
    for pid in pids:
        fields = _stat(pid)
        if fields is not None and fields[0] not in "ZX" and wanted(pid, fields):
            found.append(Identity(pid, int(fields[19]), boot))
    return found


def marked(marker: str) -> list[Identity]:
    """Living processes whose environment has the line ``NAME=value``."""
    return _living(_pids(), lambda pid, _: environ_has(pid, marker))


def session_members(sid: int) -> list[Identity]:
    """Living processes of a session. The kernel hands out no pid that is still a session's number."""
    return _living(_pids(), lambda _, fields: int(fields[3]) == sid)


def session_of(pid: int) -> int | None:
    """The session a process is in, or None when it is gone."""
    fields = _stat(pid)
    return None if fields is None else int(fields[3])


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
        fields = _stat(other)
        if fields is not None:
            parents[other] = int(fields[1])
    found, level = [], {pid}
    while level:
        level = {child for child, parent in parents.items() if parent in level}
        found += sorted(level)
    return _living(found, lambda _pid, _fields: True)
