"""A process's hold on the tunnel: starts it where none runs, and again when it died."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from skyinfra.channels.ssh_target import SshTarget
from skyinfra.model.home import Home

__all__ = ["TunnelClient", "TunnelFailed"]

START_S = 20.0
#: A route is told at once; only a machine with no time to spare takes longer.
ANSWER_S = 20.0
PROTOCOL = 1
ENVIRONMENT = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "SSH_AUTH_SOCK", "XDG_RUNTIME_DIR", "PYTHONPATH")


class TunnelFailed(Exception):
    """The tunnel process does not run, and could not be started."""


class TunnelClient:
    """Keeps one connection to the tunnel, which lives as long as somebody does. Blocking, thread-safe."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._folder = home.tunnel()
        self._guard = threading.Lock()  # guards the connection: one request at a time
        self._connection: socket.socket | None = None
        self._lines: Any = None
        self._started: subprocess.Popen[bytes] | None = None

    def route(self, key: str, target: SshTarget, remote: str) -> str:
        """The unix socket here that leads to the one called `remote` there. Raises `TunnelFailed`."""
        return self.ask({"op": "route", "key": key, "target": target.to_json(), "remote": remote})["socket"]

    def why(self, key: str) -> str | None:
        """Why the route's last stream could not be opened; None when it could."""
        return self.ask({"op": "why", "key": key})["reason"]

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Raises `TunnelFailed`."""
        with self._guard:
            for last in (False, True):
                self._ensure()
                try:
                    answer = self._exchange(request)
                    if "failed" in answer:
                        raise TunnelFailed(f"the SSH tunnel process cannot do it in {self._folder}: {answer['failed']}")
                    return answer
                except (OSError, ValueError) as exc:  # it died, before or after it heard: every request may be repeated
                    self._hang_up()
                    if last:
                        raise TunnelFailed(f"the SSH tunnel process does not answer: {exc}") from exc
        raise AssertionError("unreachable")

    def retire(self) -> None:
        """End the tunnel, whoever else holds it. Nothing where none runs."""
        with self._guard:
            try:
                if self._connection is None:
                    self._dial()
                self._exchange({"op": "retire"})
            except (OSError, ValueError):
                pass  # none runs
            self._hang_up()

    def close(self) -> None:
        """Give up the hold; the tunnel ends by itself when it was the last one."""
        with self._guard:
            self._hang_up()

    def _exchange(self, request: dict[str, Any]) -> dict[str, Any]:
        self._lines.write(json.dumps(request).encode() + b"\n")
        self._lines.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        line = self._lines.readline()
        if not line:
            raise ConnectionResetError("it ended")
        return json.loads(line)

    def _hang_up(self) -> None:
        for part in (self._lines, self._connection):
            if part is not None:
                try:
                    part.close()
                except OSError:
                    pass  # what was still to be written has no reader
        self._lines = self._connection = None

    def _ensure(self) -> None:
        """Connected. Raises `TunnelFailed`."""
        if self._connection is not None:
            return
        self._make_folder()
        deadline = time.monotonic() + START_S
        while self._connection is None:
            try:
                self._dial()
            except (OSError, ValueError) as exc:
                self._hang_up()
                if time.monotonic() > deadline:
                    said = f"see {self._home.tunnel_log}"
                    raise TunnelFailed(f"the SSH tunnel process cannot be started: {exc}; {said}") from exc
                self._start()
                time.sleep(0.02)

    def _make_folder(self) -> None:
        """Who owns the folder, or what holds it, could listen in the tunnel's place, and would be told passwords."""
        for folder in (self._folder.parent, self._folder):
            try:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                owner = folder.stat().st_uid
            except OSError as exc:
                raise TunnelFailed(f"the sockets of the SSH tunnel have no place: {exc}") from exc
            if owner not in (os.getuid(), 0):
                raise TunnelFailed(f"the sockets of the SSH tunnel have no place: {folder} belongs to another user")

    def _dial(self) -> None:
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.settimeout(ANSWER_S)
        self._connection.connect(str(self._folder / "control"))
        self._lines = self._connection.makefile("rwb")
        if self._read().get("protocol") != PROTOCOL:  # of another release: let it end, and start ours
            self._exchange({"op": "retire"})
            raise ConnectionResetError("it is of another release")

    def _start(self) -> None:
        if self._started is not None and self._started.poll() is None:
            return
        with open(os.open(self._home.tunnel_log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as log:
            self._started = subprocess.Popen(
                [sys.executable, "-m", "skyinfra.channels.ssh_tunnel", str(self._folder)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=Path("/"),
                env={
                    **{name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
                    "SKYINFRA_HOME": str(self._home.root),
                },
                start_new_session=True,
            )
