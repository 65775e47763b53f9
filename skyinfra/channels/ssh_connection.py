"""A connection to an SSH server: made patiently, with a reason for each try; then commands, files and streams on it.

    target = SshTarget("gpu1", user="ubuntu", identity_file="~/.ssh/id", known_hosts=home.root / "known_hosts")
    with connect(target, time.monotonic() + 60, tell=print) as ssh:
        ssh.put(zipapp, ".skyinfra/agent.pyz", 0o600)
        done = ssh.run(["python3", ".skyinfra/agent.pyz", "--version"])

Blocking, and safe for several threads at once. What an operation needs; the server's traffic goes through the tunnel.
"""

from __future__ import annotations

import io
import select
import shlex
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import paramiko

from skyinfra.channels.host_keys import check_host_key
from skyinfra.channels.ssh_login import log_in
from skyinfra.channels.ssh_target import ResolvedTarget, SshFailed, SshTarget, resolve_target
from skyinfra.channels.ssh_transport import Transport, open_transport

__all__ = ["Completed", "SshConnection", "SshFailed", "SshTarget", "connect"]

#: One try, from the first packet to being logged in.
TRY_S = 10.0
PAUSES_S = (0.2, 0.4, 0.8, 1.5)
#: A network that says nothing for this long is dead; it is asked every third of it.
DEAD_AFTER_S = 12.0
CHUNK_BYTES = 1 << 18


@dataclass(frozen=True)
class Completed:
    """What a command left: its exit code (-1: a signal ended it, or the connection), stdout and stderr."""

    code: int
    stdout: bytes
    stderr: bytes


def connect(
    target: SshTarget,
    deadline: float,
    cancelled: Callable[[], bool] = lambda: False,
    tell: Callable[[str], None] = lambda _: None,
    *,
    retry_login: bool = False,
) -> SshConnection:
    """Try until it works, or `deadline` (of `time.monotonic`), or `cancelled`.

    `tell` gets the reason of each failed try when it differs from the last. `retry_login`: a refused key is tried again
    too, as a new cloud machine learns its keys late. Raises `SshFailed` with the last reason.
    """
    told = ""
    for pause_s in _pauses():
        try:
            return connect_once(target, min(TRY_S, max(1.0, deadline - time.monotonic())))
        except SshFailed as exc:
            if exc.fatal and not (retry_login and exc.reason.startswith("authentication failed")):
                raise
            if exc.reason != told:
                tell(exc.reason)
                told = exc.reason
            _wait(pause_s, deadline, cancelled, exc)
    raise AssertionError("pauses never end")


def connect_once(target: SshTarget, timeout_s: float = TRY_S) -> SshConnection:
    """One try. Raises `SshFailed`."""
    resolved = resolve_target(target)
    way: list[SshConnection] = []
    try:
        for hop in (*resolved.hops, resolved):
            try:
                way.append(_step(hop, way[-1] if way else None, timeout_s))
            except SshFailed as exc:
                if hop is not resolved:
                    raise SshFailed(f"jump host {hop.name}: {exc.reason}", fatal=exc.fatal) from exc
                raise
    except BaseException:
        for connection in reversed(way):
            connection.close()
        raise
    last = way.pop()
    last.own(way)
    return last


def _step(target: ResolvedTarget, through: SshConnection | None, timeout_s: float) -> SshConnection:
    where = f"{target.host}:{target.port}"
    end = time.monotonic() + timeout_s
    try:
        transport = open_transport(target, through.transport if through else None, timeout_s)
        try:
            if target.known_hosts is not None:
                check_host_key(target.known_hosts, target.pin, target.name, transport.get_remote_server_key())
            transport.auth_timeout = max(1.0, end - time.monotonic())
            log_in(transport, target)
        except BaseException:
            transport.close()
            raise
    except socket.gaierror as exc:
        raise SshFailed(f"no address is known for {target.host}") from exc
    except ConnectionRefusedError as exc:
        raise SshFailed(f"connection refused by {where}") from exc
    except TimeoutError as exc:
        raise SshFailed(f"{where} timed out after {timeout_s:.0f} s") from exc
    except paramiko.ChannelException as exc:
        raise SshFailed(f"{where} is not reached from the jump host: {exc.text}") from exc
    except (OSError, EOFError) as exc:
        said = getattr(exc, "strerror", None) or str(exc) or "it ended the connection"
        raise SshFailed(f"{where}: {said[0].lower()}{said[1:]}") from exc
    except paramiko.SSHException as exc:
        if "banner" in str(exc):
            raise SshFailed(f"{where} ended the connection before an SSH server spoke") from exc
        raise SshFailed(f"{where} does not speak SSH as we do: {exc}") from exc
    return SshConnection(transport, target)


def _pauses() -> Iterator[float]:
    yield from PAUSES_S
    while True:
        yield PAUSES_S[-1]


def _wait(pause_s: float, deadline: float, cancelled: Callable[[], bool], failed: SshFailed) -> None:
    end = time.monotonic() + pause_s
    while True:
        if cancelled():
            raise SshFailed(f"cancelled; last: {failed.reason}", fatal=True) from failed
        left = min(end, deadline) - time.monotonic()
        if left <= 0:
            break
        time.sleep(min(0.1, left))
    if time.monotonic() >= deadline:
        raise failed


class SshConnection:
    """A live connection; `close` it, or use ``with``."""

    def __init__(self, transport: Transport, target: ResolvedTarget) -> None:
        self.transport = transport
        self.target = target
        self._way: list[SshConnection] = []
        self._home: str | None = None
        self._asking_home = threading.Lock()  # guards _home: sshd grants few sessions at once

    def own(self, way: list[SshConnection]) -> None:
        """The connections this one goes through end with it."""
        self._way = way

    @property
    def alive(self) -> bool:
        """Whether the other side has been heard of lately; a silent one is asked first, by the transport."""
        return self.transport.is_active() and self.transport.silent_s() < DEAD_AFTER_S

    def run(self, argv: Sequence[str] | str, stdin: bytes | BinaryIO = b"", timeout_s: float = 60.0) -> Completed:
        """Run a command there and wait for its end; a string is a line for the login shell.

        Raises `SshFailed` when the connection breaks, or nothing ends within `timeout_s`; the command may go on there.
        """
        line = argv if isinstance(argv, str) else shlex.join(argv)
        end = time.monotonic() + timeout_s
        channel = self._open(lambda: self.transport.open_session(timeout=timeout_s), "a session")
        try:
            channel.exec_command(line)
            source = io.BytesIO(stdin) if isinstance(stdin, bytes) else stdin
            feeder = threading.Thread(target=_feed, args=(channel, source), daemon=True)
            feeder.start()
            out, err = _collect(channel, end)
            if not channel.status_event.wait(max(0.0, end - time.monotonic())):
                raise TimeoutError
            if not self.transport.is_active() and channel.exit_status == -1:
                raise EOFError
            return Completed(channel.exit_status, out, err)
        except TimeoutError as exc:
            raise SshFailed(f"{self.target.name}: {line[:80]!r} did not end within {timeout_s:g} s") from exc
        except (OSError, EOFError, paramiko.SSHException) as exc:
            raise SshFailed(f"{self.target.name}: the connection broke{_because(exc)}") from exc
        finally:
            channel.close()

    def put(
        self,
        source: bytes | Path,
        remote: str,
        mode: int = 0o600,
        progress: Callable[[int], None] | None = None,
        timeout_s: float = 300.0,
    ) -> None:
        """Write a file there: complete and with its mode, or not at all. `progress` gets the bytes sent so far.

        `remote` is relative to the home folder unless absolute; its folder must exist. Raises `SshFailed`.
        """
        opened: BinaryIO = io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")
        script = f'umask 077 && cat > "$1.part" && chmod {mode:o} "$1.part" && mv -f "$1.part" "$1"'
        with opened as file:
            stdin = _Counted(file, progress) if progress else file
            done = self.run(["sh", "-c", script, "put", remote], stdin, timeout_s)  # pyright: ignore[reportArgumentType]
        if done.code:
            said = done.stderr.decode(errors="replace").strip() or f"exit code {done.code}"
            raise SshFailed(f"{self.target.name}: {remote} cannot be written: {said}", fatal=True)

    def home(self) -> str:
        """The home folder there, asked once and without a shell where sshd has SFTP. Raises `SshFailed`."""
        with self._asking_home:
            if self._home is None:
                self._home = self._ask_home()
            return self._home

    def _ask_home(self) -> str:
        try:
            with self._open(self.transport.open_session, "a session") as channel:
                channel.invoke_subsystem("sftp")
                return paramiko.SFTPClient(channel).normalize(".")
        except (OSError, EOFError, paramiko.SSHException):
            return self.run("pwd").stdout.decode(errors="surrogateescape").rstrip("\n")

    def open_unix(self, path: str, timeout_s: float = TRY_S) -> paramiko.Channel:
        """A stream to the unix socket there; ``~/`` is the home folder. Raises `SshFailed` when nobody listens."""
        if path.startswith("~/"):
            path = f"{self.home()}/{path[2:]}"
        return self._open(lambda: self.transport.open_unix(path, timeout_s), path)

    def open_tcp(self, host: str, port: int, timeout_s: float = TRY_S) -> paramiko.Channel:
        """A stream to `host` and `port` as seen from there. Raises `SshFailed` when nobody listens."""
        return self._open(lambda: self.transport.open_tcp(host, port, timeout_s), f"{host}:{port}")

    def _open(self, opening: Callable[[], paramiko.Channel], what: str) -> paramiko.Channel:
        try:
            return opening()
        except paramiko.ChannelException as exc:
            raise SshFailed(f"{self.target.name} gives no way to {what}: {(exc.text or 'refused').lower()}") from exc
        except (OSError, EOFError, paramiko.SSHException) as exc:
            # Of several refusals at once paramiko gives the reason to one thread only.
            if self.transport.is_active():
                raise SshFailed(f"{self.target.name} gives no way to {what}{_because(exc)}") from exc
            raise SshFailed(f"{self.target.name}: the connection broke{_because(exc)}") from exc

    def close(self) -> None:
        self.transport.close()
        for connection in reversed(self._way):
            connection.close()

    def __enter__(self) -> SshConnection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Counted:
    """A file that tells how much of it was read."""

    def __init__(self, file: BinaryIO, progress: Callable[[int], None]) -> None:
        self._file, self._progress, self._read = file, progress, 0

    def read(self, size: int) -> bytes:
        self._progress(self._read)
        data = self._file.read(size)
        self._read += len(data)
        return data


def _because(exc: Exception) -> str:
    return f": {exc}" if str(exc) else ""


def _feed(channel: paramiko.Channel, source: BinaryIO) -> None:
    try:
        while chunk := source.read(CHUNK_BYTES):
            channel.sendall(chunk)
        channel.shutdown_write()
    except (OSError, EOFError, paramiko.SSHException):
        pass  # the command ended without reading all of it, or the connection did: the reader tells


def _collect(channel: paramiko.Channel, end: float) -> tuple[bytes, bytes]:
    """Stdout and stderr to their end. Raises `TimeoutError` at `end`."""
    out, err = bytearray(), bytearray()
    number = channel.fileno()  # readable when either has something, or has ended
    while True:
        if channel.recv_ready():
            out += channel.recv(CHUNK_BYTES)
        elif channel.recv_stderr_ready():
            err += channel.recv_stderr(CHUNK_BYTES)
        elif channel.eof_received or channel.closed:
            # Ends come after the data, but data may have come between the first look and this one.
            if not channel.recv_ready() and not channel.recv_stderr_ready():
                return bytes(out), bytes(err)
        elif not select.select([number], [], [], max(0.0, end - time.monotonic()))[0]:
            raise TimeoutError
