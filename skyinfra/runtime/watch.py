"""Waking those who wait: followers of a log, waiters for a job, readers of the event stream.

`Watch.job` wakes on each state change of one job, `Watch.log` also on each write to its log folder (inotify, or a
10 ms look where there is none). Only wakes; whoever is woken reads the truth itself.
"""

import asyncio
import contextlib
import ctypes
import os
import struct
from typing import Dict, Iterator, List, Optional, Set

_IN_MODIFY, _IN_CREATE = 0x2, 0x100
_IN_NONBLOCK, _IN_CLOEXEC = 0o4000, 0o2000000
_HEADER = struct.Struct("iIII")
_POLL_S = 0.01


class Wake:
    """An event for one waiter, with a time limit."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self.poll_s: Optional[float] = None

    def set(self) -> None:
        self._event.set()

    def clear(self) -> None:
        self._event.clear()

    async def wait(self, timeout_s: float) -> None:
        """Returns when set or when the time is over."""
        if self.poll_s is not None:
            timeout_s = min(timeout_s, self.poll_s)
        # a timer that sets the event costs less than `asyncio.wait_for`, and a needless wake is harmless
        timer = asyncio.get_event_loop().call_later(max(0.0, timeout_s), self._event.set)
        try:
            await self._event.wait()
        finally:
            timer.cancel()


class Watch:
    def __init__(self) -> None:
        self._jobs: Dict[int, Set[Wake]] = {}
        self._events: Set[Wake] = set()
        self._folders: Dict[int, List[Wake]] = {}  # inotify watch -> followers
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._libc.inotify_init1(_IN_NONBLOCK | _IN_CLOEXEC)
        if self._fd >= 0:
            asyncio.get_event_loop().add_reader(self._fd, self._on_inotify)

    @contextlib.contextmanager
    def job(self, job_id: int) -> Iterator[Wake]:
        wake = Wake()
        waiters = self._jobs.setdefault(job_id, set())
        waiters.add(wake)
        try:
            yield wake
        finally:
            waiters.discard(wake)
            if not waiters:
                self._jobs.pop(job_id, None)

    @contextlib.contextmanager
    def log(self, job_id: int, folder: str) -> Iterator[Wake]:
        with self.job(job_id) as wake:
            watch = self._add_folder(folder)
            if watch < 0:
                wake.poll_s = _POLL_S
                yield wake
                return
            self._folders.setdefault(watch, []).append(wake)
            try:
                yield wake
            finally:
                followers = self._folders[watch]
                followers.remove(wake)
                if not followers:
                    del self._folders[watch]
                    self._libc.inotify_rm_watch(self._fd, watch)

    @contextlib.contextmanager
    def events(self) -> Iterator[Wake]:
        wake = Wake()
        self._events.add(wake)
        try:
            yield wake
        finally:
            self._events.discard(wake)

    @property
    def listened(self) -> bool:
        """Whether anybody reads the event stream now."""
        return bool(self._events)

    def changed(self, job_id: Optional[int]) -> None:
        """The ledger has a new event, of this job if it is about one."""
        for wake in self._events:
            wake.set()
        for wake in self._jobs.get(job_id, ()) if job_id is not None else ():
            wake.set()

    def _add_folder(self, folder: str) -> int:
        """-1 when it cannot be watched (no inotify, limit reached, folder missing)."""
        if self._fd < 0:
            return -1
        return self._libc.inotify_add_watch(self._fd, os.fsencode(folder), _IN_MODIFY | _IN_CREATE)

    def _on_inotify(self) -> None:
        try:
            raw = os.read(self._fd, 65536)
        except BlockingIOError:
            return
        at = 0
        while at < len(raw):
            watch, _, _, length = _HEADER.unpack_from(raw, at)
            at += _HEADER.size + length
            for wake in self._folders.get(watch, ()):
                wake.set()
