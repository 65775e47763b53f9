"""The agent's end of the zygote: starts it, sends it orders, notices its death and makes a new one.

The zygote is a fresh process rather than a fork of the agent: the same way serves the first one and a replacement,
and no thread or database of the agent can get into it. What the dead one had not carried out is for `Jobs` to
settle.
"""

import asyncio
import collections
import json
import os
import socket
import sys
import time
from typing import Any, Callable, Deque, Dict, List, Optional

from skyinfra.runtime import procs
from skyinfra.runtime.say import say
from skyinfra.runtime.zygote import MAX_ORDER_BYTES

#: A zygote that dies sooner than this after its start is not replaced at once: that would be a fork bomb.
_MIN_LIFE_S = 1.0


class ZygoteLink:
    def __init__(
        self, argv: List[str], on_report: Callable[[Dict[str, Any]], None], on_death: Callable[[], None]
    ) -> None:
        self._argv, self._on_report, self._on_death = argv, on_report, on_death
        self._sock: Optional[socket.socket] = None
        self._outbox: Deque[bytes] = collections.deque()
        self._started_at = 0.0
        self._closed = False
        self.pid = 0
        self.start_ticks = 0

    def start(self) -> None:
        """Raises `OSError` when no process can be made."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            os.set_inheritable(theirs.fileno(), True)
            argv = [*self._argv, "zygote", str(theirs.fileno())]
            self.pid = os.posix_spawn(sys.executable, argv, os.environ)
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        self.start_ticks = procs.start_ticks(self.pid)
        self._started_at = time.monotonic()
        ours.setblocking(False)
        self._sock = ours
        asyncio.get_event_loop().add_reader(ours, self._read)

    def send(self, order: Dict[str, Any]) -> None:
        """Queue an order. Raises `ValueError` when it is too large; a dead zygote is reported through `on_death`."""
        raw = json.dumps(order).encode()
        if len(raw) > MAX_ORDER_BYTES:
            raise ValueError("the job's variables take {} bytes, {} at most".format(len(raw), MAX_ORDER_BYTES))
        self._outbox.append(raw)
        self._flush()

    def close(self) -> None:
        """The zygote ends by the end of its socket. Supervisors live on."""
        self._closed = True
        self._drop()

    def _flush(self) -> None:
        sock = self._sock
        if sock is None:
            return
        while self._outbox:
            try:
                sock.send(self._outbox[0])
            except BlockingIOError:
                asyncio.get_event_loop().add_writer(sock, self._flush)
                return
            except OSError:
                return  # dying: the reader sees the end
            self._outbox.popleft()
        asyncio.get_event_loop().remove_writer(sock)

    def _read(self) -> None:
        sock = self._sock
        while sock is not None and sock is self._sock:
            try:
                raw = sock.recv(65536)
            except BlockingIOError:
                return
            except OSError:
                raw = b""
            if not raw:
                self._died()
                return
            self._on_report(json.loads(raw))

    def _died(self) -> None:
        self._drop()
        if self._closed:
            return
        say("zygote {} died; starting another".format(self.pid))
        self._outbox.clear()  # `on_death` settles every order that has no record, sent or not
        self._on_death()
        loop = asyncio.get_event_loop()
        loop.call_later(max(0.0, _MIN_LIFE_S - (time.monotonic() - self._started_at)), self._restart)

    def _restart(self) -> None:
        if self._closed or self._sock is not None:
            return
        try:
            self.start()
            self._flush()
        except OSError as exc:  # no process or memory left: the node is in trouble, try again
            say("no zygote: {}".format(exc))
            asyncio.get_event_loop().call_later(_MIN_LIFE_S, self._restart)

    def _drop(self) -> None:
        """Close our end and reap."""
        if self._sock is None:
            return
        loop = asyncio.get_event_loop()
        loop.remove_reader(self._sock)
        loop.remove_writer(self._sock)
        self._sock.close()
        self._sock = None
        loop.call_later(0.5, _reap, self.pid) if not self._closed else _reap(self.pid)


def _reap(pid: int) -> None:
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        pass
