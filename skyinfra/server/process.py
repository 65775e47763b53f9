"""The server as a process: one per state folder, announced when it listens, ended without losing anything."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import socket
import time
from collections.abc import Coroutine
from contextlib import nullcontext
from typing import Any

import uvicorn

from skyinfra.model.home import Home
from skyinfra.runtime.boundary import boundary
from skyinfra.runtime.identity import Identity
from skyinfra.server import log as server_log
from skyinfra.server.settings import Settings
from skyinfra.server.vault import private_folder, write_private
from skyinfra.wire.versions import PRODUCT_VERSION

__all__ = ["EXIT_OTHER_SERVER", "Owned", "serve"]

EXIT_OTHER_SERVER = 3
PORTS_TO_TRY = 100
CLOSE_CONNECTIONS_S = 1
_say = server_log.get("server")


class Owned(Exception):
    """Another server runs on this state folder."""


class _Uvicorn(uvicorn.Server):
    """Signals are ours: uvicorn would end before the requests are parked."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    def capture_signals(self) -> Any:
        return nullcontext()


def take_lock(home: Home) -> int:
    """The descriptor that holds the state folder, for as long as this process lives. Raises `Owned`."""
    private_folder(home.root)
    descriptor = os.open(home.server_lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
        os.close(descriptor)
        raise Owned(f"a server already runs on {home.root} (pid {owner})") from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def listen(host: str, port: int, only_there: bool = False) -> socket.socket:
    """A listening socket on `port` or, when that is taken, the next free one unless `only_there`. Port 0 lets the
    kernel choose.

    Raises `OSError` when none is free.
    """
    tries = range(port, min(port + (1 if only_there else PORTS_TO_TRY), 65536)) if port else [0]
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    last: OSError | None = None
    for candidate in tries:
        # The protocol by number: asyncio sets TCP_NODELAY only where it sees one, and without it each reply to a
        # kept-alive connection may wait 40 ms for the peer's delayed ACK.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, candidate))
            listener.listen(512)
        except OSError as error:
            listener.close()
            last = error
            continue
        listener.setblocking(False)
        return listener
    assert last is not None
    raise last


def announce(home: Home, host: str, port: int) -> None:
    """Write server.json: from here on clients find this server."""
    record = {
        **Identity.own().to_json(),
        "host": host,
        "port": port,
        "version": PRODUCT_VERSION,
        "started_at": time.time(),
    }
    boundary("server.announce.before")
    write_private(home.server_json, json.dumps(record).encode() + b"\n")
    boundary("server.announce.made")


def withdraw(home: Home) -> None:
    home.server_json.unlink(missing_ok=True)


async def serve(settings: Settings, on_ready: Any) -> None:
    """Serve until a signal or `/v1/shutdown`; `on_ready(port)` is called when clients can come."""
    from skyinfra.server.app import build
    from skyinfra.server.wiring import production

    services = production(settings)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, services.ask_to_stop)
    await services.start()
    listener = listen(settings.host, settings.port, settings.deploy)
    port = listener.getsockname()[1]
    config = uvicorn.Config(
        build(services),
        lifespan="off",
        access_log=False,
        log_config=None,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=CLOSE_CONNECTIONS_S,
    )
    server = _Uvicorn(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]), name="http")
    try:
        await _first_of(serving, server.listening.wait())
        announce(settings.home, settings.host, port)
        on_ready(port)
        await _first_of(serving, services.stop_asked.wait())
    finally:
        withdraw(settings.home)
        stopping = asyncio.create_task(services.stop())
        server.should_exit = True
        await asyncio.gather(serving, stopping)


async def _first_of(task: asyncio.Task[None], event: Coroutine[Any, Any, Any]) -> None:
    """Wait for the event, but not past the task's end."""
    waiting = asyncio.ensure_future(event)
    await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
