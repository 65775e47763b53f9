"""The zygote: a small single-threaded process that forks supervisors, so that starting a job costs a fork.

It gets orders on a SOCK_SEQPACKET pair and ends when the agent closes its end. It reports each fork.
As a subreaper it inherits the processes of a supervisor that was killed; those it ends itself.
"""

import gc
import json
import os
import select
import signal
import socket
import time
import traceback
from typing import Any, Dict, Optional, Set, Tuple

from skyinfra.runtime import procs, supervisor
from skyinfra.runtime.boundary import boundary
from skyinfra.runtime.say import say

MAX_ORDER_BYTES = 131072


def main(fd: int) -> int:
    """Serve orders on socket `fd` until it is closed."""
    sock = socket.socket(fileno=fd)
    sock.set_inheritable(False)
    procs.become_subreaper()
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    procs.boot_id()  # read once, here
    gc.disable()
    gc.freeze()  # pages of objects that are never collected again stay shared with the supervisors
    return Zygote(sock).serve()


class Zygote:
    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.supervisors: Dict[int, int] = {}  # pid -> job id
        self.kill_strays_at: Optional[float] = None
        self.asked: Set[Tuple[int, int]] = set()  # (pid, start ticks) of strays that got SIGTERM
        self._wake_r, self._wake_w = os.pipe()
        for end in (self._wake_r, self._wake_w):
            os.set_blocking(end, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # only wakes the poll
        signal.set_wakeup_fd(self._wake_w, warn_on_full_buffer=False)

    def serve(self) -> int:
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        poll.register(self._wake_r, select.POLLIN)
        while True:
            for fd, _ in poll.poll(None if self.kill_strays_at is None else 50):
                if fd == self._wake_r:
                    os.read(self._wake_r, 512)
                elif not self._serve_order():
                    return 0
            self._reap()
            self._end_strays()

    def _serve_order(self) -> bool:
        """False when the agent is gone."""
        try:
            raw = self.sock.recv(MAX_ORDER_BYTES)
        except ConnectionResetError:
            return False
        if not raw:
            return False
        order = json.loads(raw)
        boundary("zygote.fork.before")
        try:
            pid = self._fork(order)
            boundary("zygote.fork.made")
        except OSError as exc:
            self._report({"job_id": order["job_id"], "attempt": order["attempt"], "error": str(exc)})
            return True
        self.supervisors[pid] = order["job_id"]
        self._report({"job_id": order["job_id"], "attempt": order["attempt"], "pid": pid})
        return True

    def _fork(self, order: Dict[str, Any]) -> int:
        # the child must not run the zygote's handlers, nor be ended before it has its own
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCHLD})
        try:
            pid = os.fork()
            if pid == 0:
                self._become_supervisor(order)  # ends in os._exit: what follows is the zygote's
            return pid
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, set())

    def _become_supervisor(self, order: Dict[str, Any]) -> None:
        """Never returns."""
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            self.sock.close()  # else the agent would not see the zygote die
            os.close(self._wake_r)
            os.close(self._wake_w)
            os.setsid()
            status = supervisor.main(order)
        except BaseException:  # the outermost frame of this process: say it where the agent's log is
            say(traceback.format_exc())
        finally:
            os._exit(status)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if self.supervisors.pop(pid, None) is not None and status != 0:
                self.kill_strays_at = time.monotonic() + procs.TERM_GRACE_S

    def _end_strays(self) -> None:
        """Children that are no supervisors were left by a killed one (a supervisor that ends leaves none)."""
        if self.kill_strays_at is None:
            return
        mine = [p for p in procs.snapshot().values() if p.ppid == os.getpid()]
        strays = [p for p in mine if p.pid not in self.supervisors]
        killing = time.monotonic() >= self.kill_strays_at
        for stray in strays:
            if killing:
                procs.send_signal(stray.pid, stray.start_ticks, signal.SIGKILL)
            elif (stray.pid, stray.start_ticks) not in self.asked:
                procs.send_signal(stray.pid, stray.start_ticks, signal.SIGTERM)
            self.asked.add((stray.pid, stray.start_ticks))
        if not strays and killing:
            self.kill_strays_at = None
            self.asked.clear()

    def _report(self, message: Dict[str, Any]) -> None:
        try:
            self.sock.send(json.dumps(message).encode())
        except OSError:
            pass  # the agent is gone: the poll sees the end next
