"""The number and the folder of a lab, and the removal of what a dead run left.

Labs are numbered machine-wide: the number picks the subnets, so two runs never share one. A lab holds its number by a
lock (``flock``) on ``/run/skyinfra-hosts/<n>.lock``, which the kernel gives back when the process ends, however it
ends; the file names the folder and the hub, so that the next run removes both.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import tempfile
from pathlib import Path

from skyinfra.testing.hosts.unavailable import HostsUnavailable

__all__ = ["LabFolder", "reap"]

LOCKS = Path("/run/skyinfra-hosts")
#: One /24 each in 198.18.0.0/15, which RFC 2544 keeps for test beds: no real network of a contributor's is there.
NUMBERS = range(1, 255)


class LabFolder:
    """A lab's number and folder, held until `close` or the end of this process."""

    def __init__(self) -> None:
        """Raises `HostsUnavailable` when every number is taken."""
        LOCKS.mkdir(exist_ok=True)
        for number in NUMBERS:
            lock = _take(LOCKS / f"{number}.lock")
            if lock is None:
                continue
            _remove_left(lock)
            if Path(f"/sys/class/net/skyh{number}").exists():  # the kernel is still taking an ended lab apart
                os.close(lock)
                continue
            self.number, self._lock = number, lock
            self.path = Path(tempfile.mkdtemp(prefix="skyhosts-"))
            self.record()
            return
        raise HostsUnavailable(f"all {len(NUMBERS)} labs of this machine are taken")

    def record(self, hub_pid: int | None = None) -> None:
        """Write down what a later run has to remove."""
        hub = [hub_pid, start_ticks(hub_pid)] if hub_pid else None
        _write(self._lock, {"folder": str(self.path), "hub": hub})

    def close(self) -> None:
        _remove_left(self._lock)
        os.close(self._lock)


def reap() -> None:
    """Remove what labs of dead processes left. Live ones are not touched: they hold their locks."""
    for path in sorted(LOCKS.glob("*.lock")):
        lock = _take(path)
        if lock is not None:
            _remove_left(lock)
            os.close(lock)


def start_ticks(pid: int) -> int | None:
    """When the process started, so that a pid that was used again is not taken for it; None when there is none."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return None


def _take(path: Path) -> int | None:
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


def _remove_left(lock: int) -> None:
    try:
        left = json.loads(os.pread(lock, 4096, 0) or b"{}")
    except ValueError:
        left = {}  # torn: its process died while it wrote, before anything else was made
    if (hub := left.get("hub")) and start_ticks(hub[0]) == hub[1]:
        os.kill(hub[0], signal.SIGKILL)
    if folder := left.get("folder"):
        shutil.rmtree(folder, ignore_errors=True)
    _write(lock, {})


def _write(lock: int, value: dict[str, object]) -> None:
    os.ftruncate(lock, 0)
    os.pwrite(lock, json.dumps(value).encode(), 0)
