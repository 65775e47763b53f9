"""Inside the tunnel process: one SSH connection per machine, and the streams that go through it.

A link connects when a stream needs it, again when it broke, and is given up after an idle time. Failures are remembered
for a moment, so that a hundred waiting streams do not knock one after the other at a door that nobody opens.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import suppress

import paramiko

from skyinfra.channels.ssh_connection import SshConnection, connect_once
from skyinfra.channels.ssh_target import SshFailed, SshTarget

__all__ = ["IDLE_S", "Link", "Route"]

#: A connection that nobody uses is given up after this time.
IDLE_S = 600.0
REMEMBER_S = 1.0
CHUNK_BYTES = 1 << 18
#: A key exchange costs some 30 ms of processor; more at once only make each other time out.
_KEY_EXCHANGES = threading.BoundedSemaphore(8)


class Link:
    """The way to one machine. Thread-safe."""

    def __init__(self, target: SshTarget) -> None:
        self.target = target
        self._guard = threading.Lock()  # guards what follows, and lets one thread connect while the others wait
        self._connection: SshConnection | None = None
        self._failed: tuple[float, SshFailed] | None = None
        self._streams = 0
        self._used_at = time.monotonic()

    def open_unix(self, path: str) -> paramiko.Channel:
        """A stream to the unix socket there. Raises `SshFailed`."""
        connection = self._connect()
        try:
            return connection.open_unix(path)
        except SshFailed:
            if connection.alive:
                raise  # nobody listens there: the machine itself has answered
        self._drop(connection)
        return self._connect().open_unix(path)

    def _connect(self) -> SshConnection:
        with self._guard:
            self._used_at = time.monotonic()
            if self._connection is not None and self._connection.alive:
                return self._connection
            if self._connection is not None:
                self._connection.close()
                self._connection = None
            if self._failed is not None and time.monotonic() - self._failed[0] < REMEMBER_S:
                raise self._failed[1]
            try:
                with _KEY_EXCHANGES:
                    self._connection = connect_once(self.target)
            except SshFailed as exc:
                self._failed = (time.monotonic(), exc)
                raise
            self._failed = None
            return self._connection

    def _drop(self, connection: SshConnection) -> None:
        connection.close()
        with self._guard:
            if self._connection is connection:
                self._connection = None

    def touch(self) -> None:
        """Somebody is about to use it."""
        self._used_at = time.monotonic()

    def count(self, change: int) -> None:
        """One stream more, or less."""
        with self._guard:
            self._streams += change
            self._used_at = time.monotonic()

    @property
    def streams(self) -> int:
        return self._streams

    @property
    def idle_s(self) -> float:
        return 0.0 if self._streams else time.monotonic() - self._used_at

    def watch(self) -> None:
        """End a connection whose network died, with all its streams; and one that nobody needs. Called each second."""
        # Not under the lock: a connection being made holds it, and must not hide that others are dead.
        connection = self._connection
        if connection is not None and (not connection.alive or self.idle_s > IDLE_S):
            self._drop(connection)

    @property
    def connected(self) -> bool:
        connection = self._connection
        return connection is not None and connection.alive

    def close(self) -> None:
        connection = self._connection
        if connection is not None:
            connection.close()


class Route:
    """A listening socket here that leads to a unix socket there."""

    def __init__(self, path: str, remote: str, link: Link) -> None:
        self.path = path
        self.remote = remote
        self.link = link
        #: Why the last stream could not be opened; None when it could.
        self.reason: str | None = None
        with suppress(FileNotFoundError):
            os.unlink(path)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(128)

    def serve(self, local: socket.socket) -> None:
        """Carry one connection to its end."""
        link = self.link
        link.count(1)
        try:
            with local:
                try:
                    channel = link.open_unix(self.remote)
                except SshFailed as exc:
                    self.reason = exc.reason
                    return
                self.reason = None
                with channel:
                    _carry(local, channel)
        finally:
            link.count(-1)


def _carry(local: socket.socket, channel: paramiko.Channel) -> None:
    """Both ways until both have ended."""
    back = threading.Thread(target=_copy_back, args=(channel, local), daemon=True)
    back.start()
    try:
        while data := local.recv(CHUNK_BYTES):
            channel.sendall(data)
        channel.shutdown_write()
    except OSError:  # either end is gone; paramiko's are OSErrors too
        channel.close()
    back.join()


def _copy_back(channel: paramiko.Channel, local: socket.socket) -> None:
    try:
        while data := channel.recv(CHUNK_BYTES):
            local.sendall(data)
        # Also what a dead network comes to: whoever reads sees an answer that is cut short.
        local.shutdown(socket.SHUT_RDWR)
    except OSError:
        channel.close()
