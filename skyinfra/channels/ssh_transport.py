"""Paramiko's transport with what it lacks: streams to unix sockets, and a pulse that a dead network does not have.

Leans on three things inside paramiko that its documentation does not promise: `_send_user_message`, the packetizer's
`read_message` and `set_keepalive`. The contract tests of channels fail when they change.
"""

from __future__ import annotations

import logging
import select
import socket
import subprocess
import threading
import time

import paramiko
from paramiko.common import cMSG_GLOBAL_REQUEST

from skyinfra.channels.host_keys import pinned_types
from skyinfra.channels.ssh_target import ResolvedTarget

__all__ = ["Transport", "open_transport"]

# What goes wrong reaches us as exceptions; without a handler paramiko's log would print its tracebacks to stderr.
logging.getLogger("paramiko").addHandler(logging.NullHandler())

PULSE_S = 4.0
#: What the kernel allows sent packets to go unanswered, in ms.
USER_TIMEOUT_MS = 15_000
STREAMLOCAL = "direct-streamlocal@openssh.com"
#: 4 MiB under way per stream: 64 KiB is what a round trip of 20 ms would turn into 3 MB/s.
WINDOW_BYTES = 1 << 22
PACKET_BYTES = 1 << 15


class Transport(paramiko.Transport):
    """Knows when it last heard of the other side; asks it every `PULSE_S` when it is silent."""

    def __init__(self, sock: object) -> None:
        super().__init__(
            sock,  # pyright: ignore[reportArgumentType] - anything like a socket
            default_window_size=WINDOW_BYTES,
            default_max_packet_size=PACKET_BYTES,
        )
        self.daemon = True
        self._heard = time.monotonic()
        self._opening = threading.local()
        read = self.packetizer.read_message

        def read_and_note():
            message = read()
            self._heard = time.monotonic()
            return message

        self.packetizer.read_message = read_and_note

    def silent_s(self) -> float:
        """Seconds since the last packet from there."""
        return time.monotonic() - self._heard

    def start_pulse(self) -> None:
        """From now on `silent_s` grows beyond `PULSE_S` only when the other side is dead, or the way there."""
        self.packetizer.set_keepalive(PULSE_S, self._ask)

    def _ask(self) -> None:
        # Paramiko's own keepalive wants no reply, so a dead network would never be noticed.
        request = paramiko.Message()
        request.add_byte(cMSG_GLOBAL_REQUEST)
        request.add_string("keepalive@openssh.com")
        request.add_boolean(True)
        self._send_user_message(request)

    def open_tcp(self, host: str, port: int, timeout_s: float) -> paramiko.Channel:
        return self.open_channel("direct-tcpip", (host, port), ("127.0.0.1", 0), timeout=timeout_s)

    def open_unix(self, path: str, timeout_s: float) -> paramiko.Channel:
        """OpenSSH's extension; paramiko knows the message but not what has to be added to it."""
        self._opening.path = path
        try:
            return self.open_channel(STREAMLOCAL, timeout=timeout_s)
        finally:
            self._opening.path = None

    def _send_user_message(self, data: paramiko.Message) -> None:
        path = getattr(self._opening, "path", None)
        if path is not None:
            data.add_string(path)
            data.add_string("")
            data.add_int(0)
            self._opening.path = None
        super()._send_user_message(data)  # pyright: ignore[reportAttributeAccessIssue]


def open_transport(target: ResolvedTarget, through: Transport | None, timeout_s: float) -> Transport:
    """Connected, keys exchanged, not logged in.

    Raises `OSError`, `EOFError`, `paramiko.SSHException`; `paramiko.ChannelException` when the jump host cannot go on.
    """
    end = time.monotonic() + timeout_s
    transport = Transport(_open_socket(target, through, timeout_s))
    try:
        transport.banner_timeout = transport.handshake_timeout = timeout_s
        if target.known_hosts is not None and (pinned := pinned_types(target.known_hosts, target.pin)):
            _prefer(transport, pinned)
        started = threading.Event()
        transport.start_client(started)
        if not started.wait(max(0.5, end - time.monotonic())):
            raise TimeoutError
        if not transport.is_active():
            raise transport.get_exception() or EOFError()
        transport.start_pulse()
    except BaseException:
        transport.close()
        raise
    return transport


def _open_socket(target: ResolvedTarget, through: Transport | None, timeout_s: float) -> object:
    if through is not None:
        return through.open_tcp(target.host, target.port, timeout_s)
    if target.proxy_command is not None:
        return _Command(target.proxy_command)
    sock = socket.create_connection((target.host, target.port), timeout_s)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)
    return sock


def _prefer(transport: Transport, pinned: list[str]) -> None:
    """A host has keys of several types: ask for one we know, or every host would seem to have changed."""
    wanted = {name for kind in pinned for name in (("rsa-sha2-512", "rsa-sha2-256") if kind == "ssh-rsa" else (kind,))}
    options = transport.get_security_options()
    options.key_types = sorted(options.key_types, key=lambda kind: kind not in wanted)


class _Command:
    """What a ``ProxyCommand`` says and hears, as a socket."""

    def __init__(self, line: str) -> None:
        self._process = subprocess.Popen(
            ["sh", "-c", f"exec {line}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )
        self._timeout: float | None = None
        self._closed = False  # paramiko looks

    def settimeout(self, timeout_s: float | None) -> None:
        self._timeout = timeout_s

    def send(self, data: bytes) -> int:
        assert self._process.stdin is not None
        return self._process.stdin.write(data) or 0

    def recv(self, size: int) -> bytes:
        assert self._process.stdout is not None
        try:
            if not select.select([self._process.stdout], [], [], self._timeout)[0]:
                raise TimeoutError
            return self._process.stdout.read(size) or b""
        except ValueError:  # closed meanwhile
            return b""

    def close(self) -> None:
        self._closed = True
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        self._process.kill()
        self._process.wait()
