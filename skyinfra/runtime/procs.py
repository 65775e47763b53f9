"""Processes of this machine, by what /proc says: identity (pid + start ticks + boot id), families, ends.

A pid alone is never trusted: pids are reused. Owns finding and signalling; decides nothing about jobs.
"""

import ctypes
import functools
import os
import signal
import time
from typing import Callable, Dict, Iterable, List, NamedTuple, Optional, Set

PR_SET_CHILD_SUBREAPER = 36
SYS_PIDFD_OPEN = 434
#: What a job's tree gets between SIGTERM and SIGKILL.
TERM_GRACE_S = 5.0
_POLL_S = 0.02
#: Loaded once, before any fork: each `CDLL` makes classes, and a supervisor's own memory is what it touches.
_LIBC = ctypes.CDLL(None, use_errno=True)
_prctl, _syscall = _LIBC.prctl, _LIBC.syscall


class Stat(NamedTuple):
    """The fields of /proc/PID/stat that identify a process and its place."""

    pid: int
    name: str
    state: str
    ppid: int
    sid: int
    threads: int
    start_ticks: int

    @property
    def live(self) -> bool:
        """A zombie is dead, unless only its first thread has ended."""
        return self.state not in "ZX" or (self.state == "Z" and self.threads > 1)


@functools.lru_cache(maxsize=None)
def boot_id() -> str:
    """Changes with every boot of the kernel."""
    return _read("/proc/sys/kernel/random/boot_id").decode().strip()


def _read(path: str) -> bytes:
    """A small file of /proc. Raises `OSError`."""
    fd = os.open(path, os.O_RDONLY)
    try:
        return os.read(fd, 4096)
    finally:
        os.close(fd)


def read_stat(pid: int) -> Optional[Stat]:
    """None when there is no such process."""
    try:
        raw = _read("/proc/{}/stat".format(pid)).decode("utf-8", "replace")
    except OSError:  # ENOENT, or ESRCH when it ends while being read
        return None
    # the name stands in parentheses and may itself hold spaces and parentheses
    name, rest = raw[raw.index("(") + 1 : raw.rindex(")")], raw[raw.rindex(")") + 2 :].split()
    return Stat(pid, name, rest[0], int(rest[1]), int(rest[3]), int(rest[17]), int(rest[19]))


def start_ticks(pid: int) -> int:
    """Field 22 of stat; 0 when there is no such process."""
    seen = read_stat(pid)
    return seen.start_ticks if seen else 0


def alive(pid: int, ticks: int) -> bool:
    """Whether this very process still runs (a zombie does not)."""
    seen = read_stat(pid) if pid > 0 else None
    return seen is not None and seen.start_ticks == ticks and seen.live


def identity(pid: Optional[int] = None) -> Dict[str, object]:
    """`{pid, start_ticks, boot_id}`: what a process leaves so that a successor can recognise it."""
    pid = pid or os.getpid()
    return {"pid": pid, "start_ticks": start_ticks(pid), "boot_id": boot_id()}


def snapshot() -> Dict[int, Stat]:
    """Every live process, zombies left out."""
    found = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            seen = read_stat(int(entry))
            if seen is not None and seen.live:
                found[seen.pid] = seen
    return found


def family(roots: Iterable[int], table: Dict[int, Stat]) -> Set[int]:
    """`roots` that live and all their descendants."""
    children: Dict[int, List[int]] = {}
    for seen in table.values():
        children.setdefault(seen.ppid, []).append(seen.pid)
    found: Set[int] = set()
    pending = list(roots)
    while pending:
        pid = pending.pop()
        if pid not in found:
            found.add(pid)
            pending.extend(children.get(pid, ()))
    return found & set(table)


def marked(marker: bytes, table: Dict[int, Stat]) -> Set[int]:
    """Processes that were started with `NAME=value` in their environment (its first copy, so a job cannot unset it)."""
    found = set()
    for pid in table:
        try:
            with open("/proc/{}/environ".format(pid), "rb") as f:
                if marker in f.read().split(b"\0"):
                    found.add(pid)
        except OSError:  # ended meanwhile, or another user's
            continue
    return found


def send_signal(pid: int, ticks: int, number: int) -> bool:
    """Signal this very process; False when it is gone."""
    if not alive(pid, ticks):
        return False
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def end_all(find: Callable[[], Dict[int, Stat]], grace_s: float, reap: Callable[[], object] = lambda: None) -> Set[int]:
    """SIGTERM everything `find` finds, again as it finds more; after `grace_s` SIGKILL; until it finds nothing.

    Returns every pid that was signalled. Gives up (and returns) 10 s after the first SIGKILL: the caller looks again.
    """
    signalled: Set[int] = set()
    kill_at = time.monotonic() + grace_s
    while True:
        reap()
        found = find()
        if not found or time.monotonic() > kill_at + 10:
            return signalled
        killing = time.monotonic() >= kill_at
        for seen in found.values():
            if killing:
                send_signal(seen.pid, seen.start_ticks, signal.SIGKILL)
            elif seen.pid not in signalled:
                send_signal(seen.pid, seen.start_ticks, signal.SIGTERM)
                send_signal(seen.pid, seen.start_ticks, signal.SIGCONT)  # a stopped process cannot act on its SIGTERM
            signalled.add(seen.pid)
        time.sleep(_POLL_S)


def become_subreaper() -> None:
    """Orphans below this process become its children. Raises `OSError`."""
    if _prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def open_pidfd(pid: int) -> int:
    """A descriptor that becomes readable when the process ends. Raises `OSError` (ENOSYS: kernel before 5.3)."""
    opener = getattr(os, "pidfd_open", None)
    if opener is not None:
        return opener(pid, 0)
    fd = _syscall(SYS_PIDFD_OPEN, pid, 0)
    if fd < 0:
        raise OSError(ctypes.get_errno(), "pidfd_open")
    return fd


def exit_code(status: int) -> int:
    """Of a wait status: the exit code, or minus the signal. `os.waitstatus_to_exitcode` comes with Python 3.9."""
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
