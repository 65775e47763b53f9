"""Making sure that nobody else works on a stack: proves a lock's owner dead, ends what it left, removes the lock.

A dead engine is not a dead Create, so the whole session of a dead worker is ended before its lock goes. A lock whose
owner lives, or runs on another host, is respected: `StackHeld`.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

from skyinfra.model.home import Home
from skyinfra.runtime.boundary import boundary
from skyinfra.stacks import processes
from skyinfra.stacks.backend import Backend, Lock
from skyinfra.stacks.events import Told

__all__ = ["StackHeld", "seize"]

ENDING_TIMEOUT_S = 10.0


class StackHeld(Exception):
    """Somebody alive, or beyond our sight, holds the stack's lock."""


def seize(home: Home, backend: Backend, stack: str, tell: Callable[[Told], None]) -> None:
    """The stack has no lock when this returns. Raises `StackHeld`."""
    for lock in backend.locks(stack):
        _end_owner(home, lock)
        boundary("worker.recover.lock.before")
        backend.remove_lock(lock)
        boundary("worker.recover.lock.made")
        tell(Told("recover", op="cancel", text=f"removed the lock of process {lock.pid}, which has ended"))


def _end_owner(home: Home, lock: Lock) -> None:
    who = f"process {lock.pid} of {lock.user}@{lock.host}, since {lock.at}"
    if lock.host and lock.host != socket.gethostname():
        raise StackHeld(f"the stack is held by {who}, on another host")
    owner = processes.Identity.of(lock.pid) if lock.pid else None
    if owner is None or not processes.alive(owner):
        return
    if not _is_engine(owner.pid):
        return  # the number was handed out again: the engine that wrote the lock is gone
    if not processes.environ_has(owner.pid, f"SKYINFRA_HOME={home.root}"):
        raise StackHeld(f"the stack is held by {who}")
    session = processes.session_of(owner.pid)
    if session is None:
        return
    if processes.alive(processes.Identity.of(session)) and session != owner.pid:
        raise StackHeld(f"the stack is held by {who}, a worker that still runs")
    left = processes.end(lambda: processes.session_members(session), timeout_s=ENDING_TIMEOUT_S)
    if left:
        raise StackHeld(f"process {left[0].pid}, left by a dead worker, does not end")


def _is_engine(pid: int) -> bool:
    """Whether it runs an executable called pulumi, or one that we start as such."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            program, *words = file.read().split(b"\0")
    except OSError:
        return False
    return program.rsplit(b"/", 1)[-1] == b"pulumi" or b"--non-interactive" in words
