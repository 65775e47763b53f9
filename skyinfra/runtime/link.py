"""The connection between a worker and its head: frames over TLS, one connection per worker, dialled by the worker.

`Listener` is the head's end, `Dialer` the worker's. Both prove themselves with a certificate of the cluster's CA that
names their slot. A side that is not heard for `LINK_SILENCE_S` is hung up on; the worker dials again. What a frame
means is for `Gangs` and `Ranks`; nothing is kept here for a peer that is away.
"""

import asyncio
import contextlib
import json
import os
import socket
import ssl
import struct
import time
from typing import Any, Awaitable, Callable, Dict, List, Optional, Set, Tuple

from skyinfra.runtime import disk
from skyinfra.runtime.protocol import (
    LINK_BEAT_S,
    LINK_SILENCE_S,
    MAX_FRAME_BYTES,
    Frame,
    dump,
)
from skyinfra.runtime.say import say
from skyinfra.runtime.schema import checked

#: Tried first; where it is taken, the kernel chooses.
PORT = 46591
_HEAD = struct.Struct(">II")
_DIAL_S = 10.0
_REDIAL_S = (0.05, 1.0)

OnFrame = Callable[[int, Frame, bytes], None]
OnLink = Callable[[int], None]


class BadFrame(Exception):
    """The peer does not speak as agreed."""


class Link:
    """One connection, from either end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.heard_at = time.monotonic()

    def send(self, frame: Frame, data: bytes = b"") -> None:
        """Queued; lost with the connection."""
        head = json.dumps({name: value for name, value in dump(frame).items() if value}).encode()
        if len(head) > MAX_FRAME_BYTES:
            raise ValueError("a frame has {} bytes at most, not {}".format(MAX_FRAME_BYTES, len(head)))
        if not self._writer.is_closing():
            self._writer.write(_HEAD.pack(len(head), len(data)) + head + data)

    async def send_all(self, frame: Frame, data: bytes) -> None:
        """As `send`; returns when the peer keeps up. Raises `ConnectionError`."""
        self.send(frame, data)
        await self._writer.drain()

    async def receive(self) -> Tuple[Frame, bytes]:
        """Raises `BadFrame`, `ConnectionError`, `asyncio.IncompleteReadError` (it is over)."""
        head, data = _HEAD.unpack(await self._reader.readexactly(_HEAD.size))
        if head > MAX_FRAME_BYTES or data > MAX_FRAME_BYTES:
            raise BadFrame("a frame of {} and {} bytes".format(head, data))
        try:
            value = json.loads(await self._reader.readexactly(head))
            frame = checked(Frame, value)
        except (ValueError, AttributeError, TypeError) as exc:
            raise BadFrame("not a frame: {}".format(exc)) from exc
        body = await self._reader.readexactly(data)
        self.heard_at = time.monotonic()
        return frame, body

    async def beat(self) -> None:
        """Be heard, and hang up on a peer that is not. Ends with the connection."""
        while not self._writer.is_closing():
            self.send(Frame("beat"))
            await asyncio.sleep(LINK_BEAT_S)
            if time.monotonic() - self.heard_at > LINK_SILENCE_S:
                self.close()

    def close(self) -> None:
        """At once: bytes for a peer that is not there would keep the socket for minutes."""
        transport = self._writer.transport
        if transport is not None:
            transport.abort()

    @property
    def peer_slot(self) -> int:
        """As its certificate says; -1 when it says nothing of the kind."""
        cert: Dict[str, Any] = self._writer.get_extra_info("peercert") or {}
        names = [value for kind, value in cert.get("subjectAltName", ()) if kind == "DNS"]
        slots = [name[5:] for name in names if name.startswith("node-") and name[5:].isdigit()]
        return int(slots[0]) if slots else -1


def context(state: str, tls: Dict[str, Any], server: bool) -> ssl.SSLContext:
    """Of this node: shows its certificate, wants one of the same CA. Raises `OSError`, `ValueError` (no such pair)."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    made.verify_mode = ssl.CERT_REQUIRED
    made.load_verify_locations(cadata=str(tls.get("ca")))
    folder = os.path.join(state, "tls")
    disk.private_folder(folder)
    path = os.path.join(folder, "node.pem")
    disk.write_file(path, "{}\n{}".format(tls.get("cert"), tls.get("key")).encode())
    made.load_cert_chain(path)
    return made


class Listener:
    """The head's end. `on_up`, `on_down` and `on_frame` name the worker by its slot."""

    def __init__(self, on_up: OnLink, on_down: OnLink, on_frame: OnFrame) -> None:
        self._on_up, self._on_down, self._on_frame = on_up, on_down, on_frame
        self._links: Dict[int, Link] = {}
        self._server: Optional[asyncio.AbstractServer] = None
        self._tasks: "Set[asyncio.Task[None]]" = set()
        self.port = 0

    def link(self, slot: int) -> Optional[Link]:
        return self._links.get(slot)

    async def listen(self, ip: str, port: int, tls: ssl.SSLContext) -> None:
        """Raises `OSError` when the node has no such address."""
        await self.close()
        sock = _bind(ip, port)
        self.port = sock.getsockname()[1]
        self._server = await asyncio.start_server(self._connection, sock=sock, ssl=tls)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        await _end(self._tasks)
        self.port = 0

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        link = Link(reader, writer)
        slot = link.peer_slot
        beating = asyncio.ensure_future(link.beat())
        try:
            frame, _ = await link.receive()
            if slot <= 0 or frame.kind != "hello":
                raise BadFrame("{} from slot {}".format(frame.kind, slot))
            before = self._links.get(slot)
            self._links[slot] = link
            if before is not None:
                before.close()
            self._on_frame(slot, frame, b"")
            self._on_up(slot)
            while self._links.get(slot) is link:
                frame, data = await link.receive()
                if frame.kind != "beat":
                    self._on_frame(slot, frame, data)
        except (OSError, asyncio.IncompleteReadError):
            pass  # it left, or was hung up on
        except BadFrame as exc:
            say("a worker was refused: {}".format(exc))
        except asyncio.CancelledError:
            pass  # the agent ends
        finally:
            beating.cancel()
            self._tasks.discard(task)
            link.close()
            if self._links.get(slot) is link:
                del self._links[slot]
                self._on_down(slot)


class Dialer:
    """The worker's end: dials until it is closed. `on_up` gets each new link."""

    def __init__(self, hello: Callable[[], Frame], on_up: Callable[[Link], None], on_frame: OnFrame) -> None:
        self._hello, self._on_up, self._on_frame = hello, on_up, on_frame
        self._task: "Optional[asyncio.Task[None]]" = None
        self._target: Tuple[Any, ...] = ()
        self.link: Optional[Link] = None

    async def dial(self, ip: str, port: int, tls: "Callable[[], ssl.SSLContext]", key: Any) -> None:
        """Keep a connection there from now on; `key` tells one `tls` from another. Idempotent."""
        if self._target == (ip, port, key):
            return
        await self.close()
        self._target = (ip, port, key)
        self._task = asyncio.get_event_loop().create_task(self._run(ip, port, tls()))

    async def close(self) -> None:
        self._target = ()
        if self._task is not None:
            await _end({self._task})
            self._task = None

    async def _run(self, ip: str, port: int, tls: ssl.SSLContext) -> None:
        wait_s, said = _REDIAL_S[0], ""
        while True:
            try:
                opening = asyncio.open_connection(ip, port, ssl=tls, server_hostname="node-0")
                reader, writer = await asyncio.wait_for(opening, _DIAL_S)
            except (OSError, asyncio.TimeoutError) as exc:
                if str(exc) != said:
                    said = str(exc)
                    say("the head at {}:{} does not answer: {}".format(ip, port, exc or "no answer"))
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, _REDIAL_S[1])
                continue
            wait_s, said = _REDIAL_S[0], ""
            await self._serve(Link(reader, writer))
            await asyncio.sleep(wait_s)

    async def _serve(self, link: Link) -> None:
        beating = asyncio.ensure_future(link.beat())
        self.link = link
        try:
            link.send(self._hello())
            self._on_up(link)
            while True:
                frame, data = await link.receive()
                if frame.kind != "beat":
                    self._on_frame(0, frame, data)
        except (OSError, asyncio.IncompleteReadError):
            pass  # the head left
        except BadFrame as exc:
            say("the head was hung up on: {}".format(exc))
        finally:
            self.link = None
            beating.cancel()
            link.close()


async def guarded(sending: Awaitable[None]) -> None:
    """Sending that may end with its connection: whoever dials again asks again."""
    with contextlib.suppress(OSError):
        await sending


async def _end(tasks: "Set[asyncio.Task[None]]") -> None:
    for task in list(tasks):
        task.cancel()
    if tasks:
        await asyncio.wait(list(tasks), timeout=1.0)


def _bind(ip: str, port: int) -> socket.socket:
    """The wished port, else any. Raises `OSError`."""
    tries: List[int] = [port or PORT, 0]
    for number in tries:
        sock = socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_STREAM)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((ip, number))
            sock.listen(128)
            sock.setblocking(False)
            return sock
        except OSError:
            sock.close()
            if number == 0:
                raise
    raise AssertionError("the last try raises")
