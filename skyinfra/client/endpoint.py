"""Which server to talk to: an endpoint given by the user, else the local server of this state folder.

Owns the reading of ``server.json`` and the proof that the process it names still lives (pid, start ticks and boot id: a
pid alone may be someone else's by now). It never speaks HTTP; `transport` does, and `server_process` starts servers.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

from skyinfra.client import config, login
from skyinfra.model.home import Home

__all__ = [
    "Start",
    "Target",
    "given_endpoint",
    "locate",
    "parse",
    "process_lives",
    "read_server",
    "recorded_server",
    "token_for",
    "unreachable",
]

ENDPOINT_VARIABLES = ("SKYINFRA_API_SERVER_ENDPOINT", "SKYPILOT_API_SERVER_ENDPOINT")
TOKEN_VARIABLES = ("SKYINFRA_API_SERVER_TOKEN", "SKYPILOT_SERVICE_ACCOUNT_TOKEN")
DEFAULT_PORT = 46590
LOOPBACK = ("127.0.0.1", "localhost", "::1", "0.0.0.0", "::")

Start = Literal["yes", "crashed", "no"]
"""When a local server is not there: start it, start it only if it crashed (one that was stopped took its
``server.json`` away, on purpose), or never."""


@dataclass(frozen=True)
class Target:
    """A server's address and the token it wants. `local`: of this state folder, so it may be started again."""

    scheme: str
    host: str
    port: int
    path: str
    token: str
    local: bool

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.path}"


def given_endpoint() -> str | None:
    """The endpoint that the environment names, else the configuration (`api_server.endpoint`), else None."""
    named = next((os.environ[name] for name in ENDPOINT_VARIABLES if os.environ.get(name)), None)
    return named or config.setting(("api_server", "endpoint"))


def locate(start: Start = "yes") -> Target:
    """The server to talk to.

    Raises `ApiServerConnectionError` when a local server is wanted, is not there and may not be (or could not be)
    started, and `ValueError` for an endpoint that is no ``http://host[:port]``.
    """
    home = Home.from_env()
    endpoint = given_endpoint()
    if endpoint is not None:
        return parse(endpoint, token_for(endpoint, home))
    server = read_server(home)
    if server is None:
        from skyinfra.client import server_process  # only when one must be started

        crashed = recorded_server(home) is not None
        if start == "no" or (start == "crashed" and not crashed):
            hint = "start it with `skyinfra api start`; unfinished requests resume then"
            raise unreachable("the API server is not running", hint)
        server = server_process.start(home)
    return Target("http", server["host"], int(server["port"]), "", _folders_token(home), local=True)


def unreachable(message: str, hint: str, url: str = "") -> Exception:
    """An `ApiServerConnectionError` that says why, and what to do."""
    from skyinfra.model.exceptions import ApiServerConnectionError, with_hint

    error = ApiServerConnectionError(url or given_endpoint() or "this machine")
    error.args = (message,)
    return with_hint(error, hint)


def parse(endpoint: str, token: str) -> Target:
    """Raises `ValueError` for what is no ``http://host[:port]``."""
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"the server's endpoint must be http://host[:port] or https://host[:port], not {endpoint!r}")
    port = parts.port or (443 if parts.scheme == "https" else DEFAULT_PORT)
    return Target(parts.scheme, parts.hostname, port, parts.path.rstrip("/"), token, local=False)


def token_for(endpoint: str, home: Home) -> str:
    """The bearer token for an endpoint: of the environment, else the one it was logged in to with, else, for a server
    on this machine, the state folder's; or empty."""
    given = next((os.environ[name] for name in TOKEN_VARIABLES if os.environ.get(name)), None)
    if given:
        return given
    kept = login.kept()
    if kept.token and kept.endpoint and kept.endpoint.rstrip("/") == endpoint.rstrip("/"):
        return kept.token
    return _folders_token(home) if urlsplit(endpoint).hostname in LOOPBACK else ""


def _folders_token(home: Home) -> str:
    try:
        return home.token.read_text().strip()
    except FileNotFoundError:
        return ""


def recorded_server(home: Home) -> dict[str, Any] | None:
    """What ``server.json`` says, true or not; None without a readable one."""
    try:
        record = json.loads(home.server_json.read_text())
    except (FileNotFoundError, ValueError):
        return None
    return record if isinstance(record, dict) and {"pid", "host", "port"} <= record.keys() else None


def read_server(home: Home) -> dict[str, Any] | None:
    """The record of the local server if that very process lives."""
    record = recorded_server(home)
    if record is not None and process_lives(record):
        return record
    return None


def process_lives(record: dict[str, Any]) -> bool:
    """True when the process that wrote `record` (pid, start_ticks, boot_id) exists and is no zombie."""
    try:
        with open(f"/proc/{int(record['pid'])}/stat", "rb") as file:
            stat = file.read()
        with open("/proc/sys/kernel/random/boot_id") as file:
            boot_id = file.read().strip()
    except (FileNotFoundError, ProcessLookupError):
        return False
    fields = stat[stat.rindex(b")") + 2 :].split()  # the command name before it may hold spaces and parentheses
    state, start_ticks = fields[0], int(fields[19])
    return (
        state not in (b"Z", b"X")
        and start_ticks == record.get("start_ticks", start_ticks)
        and boot_id == record.get("boot_id", boot_id)
    )
