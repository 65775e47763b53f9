"""Start and stop the local API server as a process of its own.

Two clients that find no server start one between them (flock). The server gets a scrubbed environment, so that a value
exported for a job never reaches it, a session of its own, so that a client's Ctrl-C does not, and a pipe on which it
says ``ready <port>`` or ``error <text>``. This module never speaks HTTP.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from typing import IO, Any

from skyinfra.client import endpoint
from skyinfra.model.home import Home
from skyinfra.runtime.boundary import boundary, campaign_variables

__all__ = ["command", "end", "run_in_foreground", "scrubbed", "start"]

READY_S = 60.0
ENDING_S = 2.0
RECORD_S = 20.0
LOG_TAIL_LINES = 8

_ALLOWED = re.compile(
    r"PATH|HOME|USER|LOGNAME|SHELL|LANG|LC_.*|TZ|TMPDIR|XDG_.*|SKYINFRA_.*|SKYPILOT_.*|PULUMI_.*|AWS_.*|AZURE_.*|ARM_.*|PG.*|VAULT_.*"
    r"|GOOGLE_.*|CLOUDSDK_.*|KUBECONFIG|SSH_AUTH_SOCK|.*_PROXY|.*_proxy|SSL_CERT_.*|REQUESTS_CA_BUNDLE|PYTHON.*"
    r"|VIRTUAL_ENV|LD_LIBRARY_PATH|GOCACHE|GOPATH|GOMODCACHE|GOPROXY|GOFLAGS"
)

_children: list[subprocess.Popen[bytes]] = []
"""Servers started by this process, kept so that one that ends is reaped and not taken for a living one."""


def scrubbed(environ: Mapping[str, str], home: Home) -> dict[str, str]:
    """The part of `environ` that a server may see, with the state folder named."""
    kept = {name: value for name, value in environ.items() if _ALLOWED.fullmatch(name)}
    for name in (*endpoint.ENDPOINT_VARIABLES, *endpoint.TOKEN_VARIABLES):
        kept.pop(name, None)  # a server is nobody's client
    return {**kept, **campaign_variables(environ), "SKYINFRA_HOME": str(home.root)}


def command(host: str | None = None, port: int | None = None, deploy: bool = False) -> list[str]:
    """The argv of a server, without --ready-fd."""
    argv = [sys.executable, "-m", "skyinfra.server"]
    argv += ["--host", host] if host is not None else []
    argv += ["--port", str(port)] if port is not None else []
    argv += ["--deploy"] if deploy else []
    return argv


def start(home: Home, host: str | None = None, port: int | None = None, deploy: bool = False) -> dict[str, Any]:
    """The record of the living local server, started now when there is none.

    Raises `ApiServerConnectionError` with the end of ``server.log`` when it does not come up within `READY_S`.
    """
    home.root.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _one_starter(home):
        for child in _children:
            child.poll()
        running = endpoint.read_server(home)
        if running is not None:
            return running
        boundary("client.server_start.before")
        _spawn_and_wait(home, command(host, port, deploy))
        boundary("client.server_start.made")
        record = _recorded(home, RECORD_S)
        boundary("client.server_start.recorded")
        return record


def run_in_foreground(home: Home, host: str | None, port: int | None, deploy: bool = False) -> None:
    """Run a server on this terminal until it ends; Ctrl-C goes to it as to us. Raises `ApiServerConnectionError` when
    it fails."""
    home.root.mkdir(mode=0o700, parents=True, exist_ok=True)
    child = subprocess.Popen([*command(host, port, deploy), "--foreground"], env=scrubbed(os.environ, home))
    interrupted = False
    while child.poll() is None:
        try:
            child.wait()
        except KeyboardInterrupt:
            interrupted = True  # the terminal has sent it to the server, too: let it finish
    if child.returncode != 0 and not interrupted:
        raise _failed(home, f"the API server ended with exit code {child.returncode}")


def end(record: dict[str, Any], patience_s: float) -> bool:
    """Wait for a server that was asked to stop; past `patience_s` end it by force. True when it went by itself."""
    if _wait_gone(record, patience_s):
        return True
    for number, wait_s in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
        if endpoint.process_lives(record):
            os.kill(int(record["pid"]), number)
        if _wait_gone(record, wait_s):
            break
    return False


@contextlib.contextmanager
def _one_starter(home: Home) -> Iterator[None]:
    """Held by the one client that looks for a server and starts it."""
    with open(home.root / "server-start.lock", "a") as file:
        deadline = time.monotonic() + READY_S
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise _failed(home, "another client has been starting the API server for too long") from None
                time.sleep(0.02)
        yield  # closing the file lets the lock go


def _spawn_and_wait(home: Home, argv: list[str]) -> None:
    reader, writer = os.pipe()
    try:
        log_fd = os.open(home.server_log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with open(log_fd, "ab") as log:
            child = subprocess.Popen(
                [*argv, "--ready-fd", str(writer)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=home.root,
                env=scrubbed(os.environ, home),
                pass_fds=(writer,),
                start_new_session=True,
            )
        _children.append(child)
    finally:
        os.close(writer)
    with open(reader, "rb", buffering=0) as pipe:
        word, _, rest = _read_line(pipe, READY_S).partition(" ")
    if word == "ready":
        return
    try:
        code = child.wait(ENDING_S)  # it says why on the pipe and in its log; the log is whole when it has ended
    except subprocess.TimeoutExpired:
        code = None
    if word == "error":
        raise _failed(home, rest)
    if word == "":
        if code == 3 or endpoint.read_server(home) is not None:
            return  # another server owns this folder and is coming up: its record is awaited next
        raise _failed(home, "the API server did not start" + (f" (exit code {code})" if code is not None else ""))
    raise _failed(home, f"the API server said something unexpected: {word} {rest}")


def _read_line(pipe: IO[bytes], patience_s: float) -> str:
    """One line from the ready pipe; what there is when it closes or time is over."""
    deadline = time.monotonic() + patience_s
    text = b""
    while not text.endswith(b"\n"):
        readable, _, _ = select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))
        chunk = pipe.read(4096) if readable else b""
        if not chunk:
            break
        text += chunk
    return text.decode(errors="replace").strip()


def _recorded(home: Home, patience_s: float) -> dict[str, Any]:
    deadline = time.monotonic() + patience_s
    while True:
        record = endpoint.read_server(home)
        if record is not None:
            return record
        if time.monotonic() > deadline:
            raise _failed(home, "the API server came up without leaving its address")
        time.sleep(0.01)


def _wait_gone(record: dict[str, Any], patience_s: float) -> bool:
    deadline = time.monotonic() + patience_s
    while endpoint.process_lives(record):
        for child in _children:
            child.poll()
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _failed(home: Home, message: str) -> Exception:
    try:
        lines = home.server_log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
    except FileNotFoundError:
        lines = []
    hint = f"its log is {home.server_log}" + (", which ends with:\n  " + "\n  ".join(lines) if lines else "")
    return endpoint.unreachable(message.removeprefix("error: "), hint)
