"""How long a node has been idle, and what counts as activity. Used by the agent and by the server, each for itself.

Measured on the monotonic clock: a jump of the wall clock neither stops a cluster early nor keeps it for ever. Decides
nothing; `autostop.py` does.
"""

import json
import os
import time
from typing import Any, Callable, Optional

from skyinfra.runtime import procs

#: What `wait_for` may say.
JOBS_AND_SSH, JOBS, NONE = "jobs_and_ssh", "jobs", "none"


class IdleClock:
    """Seconds since the last sign of life. A sign: `busy`, or a `mark` other than the one before."""

    def __init__(self, mark: Any, idle_for_s: float = 0.0, now: Callable[[], float] = time.monotonic) -> None:
        self._now, self._mark = now, mark
        self._active_at = now() - max(0.0, idle_for_s)

    def look(self, busy: bool, mark: Any) -> float:
        """Call it again and again; the seconds of idleness now."""
        if busy or mark != self._mark:
            self._active_at, self._mark = self._now(), mark
        return self._now() - self._active_at


def stamp(at: float, ago_s: float = 0.0) -> str:
    """The moment `ago_s` seconds ago as text: `at`, what the wall clock said then, and the ticks of this boot."""
    return json.dumps({"at": at, "ticks": time.monotonic() - ago_s, "boot_id": procs.boot_id()})


def age_s(at: float, stamped: Optional[str]) -> float:
    """Seconds since `at`: by the ticks where `stamped` is of that moment and of this boot, else by the wall clock."""
    known = json.loads(stamped or "{}")
    if known.get("at") == at and known.get("boot_id") == procs.boot_id():
        return time.monotonic() - known["ticks"]
    return max(0.0, time.time() - at)


def counts_jobs(wait_for: str) -> bool:
    return wait_for != NONE


def terminal_sessions(proc: str = "/proc") -> int:
    """SSH sessions with a terminal: sshd names itself ``sshd: user@pts/0`` (since OpenSSH 9.8 ``sshd-session: …``)."""
    count = 0
    for entry in os.listdir(proc):
        if not entry.isdigit():
            continue
        try:
            with open(os.path.join(proc, entry, "cmdline"), "rb") as f:
                title = f.read(200)
        except OSError:  # ended meanwhile
            continue
        count += title.startswith((b"sshd: ", b"sshd-session: ")) and b"@pts/" in title
    return count
