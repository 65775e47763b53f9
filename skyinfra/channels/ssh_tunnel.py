"""The tunnel process: holds SSH connections to machines, and shows each agent there as a unix socket here.

    python -m skyinfra.channels.ssh_tunnel FOLDER

One per state folder, for the server and its workers (`tunnel_client` starts it). It listens on ``FOLDER/control``; a
client's connection there is its lease: when the last one has been gone for `GRACE_S`, the process ends. Requests are
JSON, one per line: ``{"op": "route", "key", "target", "remote"}`` → ``{"socket"}``, ``{"op": "why", "key"}`` →
``{"reason"}``, ``{"op": "state"}`` → ``{"links", …}``, ``{"op": "retire"}``. Passwords arrive in ``target``; they
are kept in memory only.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import selectors
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

from skyinfra.channels.ssh_target import SshTarget
from skyinfra.channels.tunnel_links import IDLE_S, Link, Route

__all__ = ["CONTROL", "Tunnel", "main"]

CONTROL = "control"
LOCK = "lock"
#: After the last client has gone.
GRACE_S = 10.0
WATCH_S = 1.0
PROTOCOL = 1


class Tunnel:
    """The routes and links, and the loop that accepts."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._guard = threading.Lock()  # guards _links, _routes and _clients
        self._links: dict[SshTarget, Link] = {}
        self._routes: dict[str, Route] = {}
        self._clients = 0
        self._left_at = time.monotonic()
        self._ended = threading.Event()
        self._selector = selectors.DefaultSelector()
        self._wake, self._woken = socket.socketpair()
        self._selector.register(self._woken, selectors.EVENT_READ)

    def serve(self) -> None:
        """Until `retire`, or until nobody has needed it for `GRACE_S`."""
        control = self._listen_for_clients()
        threading.Thread(target=self._watch, daemon=True).start()
        while not self._ended.is_set():
            for key, _ in self._selector.select(WATCH_S):
                if key.fileobj is self._woken:
                    self._woken.recv(4096)
                elif key.fileobj is control:
                    self._start(self._talk, control)
                else:
                    self._start(key.data.serve, key.data.listener)
            if not self._clients and time.monotonic() - self._left_at > GRACE_S:
                break
        control.close()
        for path in self._folder.iterdir():
            if path.name != LOCK:
                path.unlink(missing_ok=True)
        for link in list(self._links.values()):
            link.close()

    def _listen_for_clients(self) -> socket.socket:
        for path in self._folder.iterdir():
            if path.name != LOCK:
                path.unlink()  # of a tunnel that was killed
        control = socket.socket(socket.AF_UNIX)
        control.bind(str(self._folder / CONTROL))
        control.listen(64)
        self._selector.register(control, selectors.EVENT_READ)
        return control

    def _start(self, serve: Any, listener: socket.socket) -> None:
        try:
            connection = listener.accept()[0]
        except OSError:
            return  # it went away again, or the route just did
        threading.Thread(target=serve, args=(connection,), daemon=True).start()

    # -- clients -----------------------------------------------------------------------------------------------------
    def _talk(self, connection: socket.socket) -> None:
        with self._guard:
            self._clients += 1
        try:
            with connection, connection.makefile("rwb") as lines:
                _say(lines, {"protocol": PROTOCOL, "pid": os.getpid()})
                for line in lines:
                    _say(lines, self._answer_or_why(json.loads(line)))
        except OSError:
            pass  # the client is gone
        finally:
            with self._guard:
                self._clients -= 1
                self._left_at = time.monotonic()

    def _answer_or_why(self, request: dict[str, Any]) -> dict[str, Any]:
        """``{"failed": why}`` for what cannot be done here: a socket's path that is too long, a full disk."""
        try:
            return self._answer(request)
        except OSError as exc:
            return {"failed": str(exc)}

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        op = request.get("op")
        if op == "route":
            return {"socket": self._route(request["key"], SshTarget.from_json(request["target"]), request["remote"])}
        if op == "why":
            route = self._routes.get(request["key"])
            return {"reason": route.reason if route is not None else None}
        if op == "retire":
            self._ended.set()
            self._wake.send(b"x")
            return {}
        links = [
            {"host": link.target.host, "connected": link.connected, "streams": link.streams}
            for link in list(self._links.values())
        ]
        return {"pid": os.getpid(), "links": links, "routes": len(self._routes), "clients": self._clients}

    def _route(self, key: str, target: SshTarget, remote: str) -> str:
        """The socket that leads there; the same key gives the same socket, also when the machine has moved."""
        with self._guard:
            link = self._links.setdefault(target, Link(target))
            route = self._routes.get(key)
            if route is None:
                name = hashlib.sha256(key.encode()).hexdigest()[:8]
                route = self._routes[key] = Route(str(self._folder / f"{name}.sock"), remote, link)
                self._selector.register(route.listener, selectors.EVENT_READ, route)
                self._wake.send(b"x")
            route.link, route.remote = link, remote
            link.touch()
            return route.path

    # -- time --------------------------------------------------------------------------------------------------------
    def _watch(self) -> None:
        while not self._ended.wait(WATCH_S):
            for link in list(self._links.values()):
                link.watch()
            with self._guard:
                self._forget_idle()

    def _forget_idle(self) -> None:
        for key, route in list(self._routes.items()):
            if route.link.idle_s > IDLE_S:
                self._selector.unregister(route.listener)
                route.listener.close()
                os.unlink(route.path)
                del self._routes[key]
        needed = {route.link.target for route in self._routes.values()}
        for target, link in list(self._links.items()):
            if target not in needed and not link.streams:
                link.close()
                del self._links[target]


def _say(lines: Any, answer: dict[str, Any]) -> None:
    lines.write(json.dumps(answer).encode() + b"\n")
    lines.flush()


def main(folder: str) -> int:
    """Serve; at once 0 when another tunnel of this folder does."""
    os.makedirs(folder, mode=0o700, exist_ok=True)
    lock = os.open(Path(folder, LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return 0
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for whoever started the server in a terminal
    os.umask(0o077)
    Tunnel(Path(folder)).serve()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
