"""The server itself: start, stop, describe and check it."""

from __future__ import annotations

import contextlib
from typing import Any
from urllib.parse import urlsplit

from skyinfra.client import endpoint, transport
from skyinfra.model.home import Home
from skyinfra.model.records import Record

__all__ = ["api_info", "api_server_logs", "api_start", "api_stop", "doctor"]

SILENT_LOG_S = 86400.0
STOP_S = 25.0
"""`api stop` gives workers 10 s; the rest is for writing down what they reached."""


def api_info() -> Record:
    """The server's version and health, with the fields of SkyPilot's `APIHealthResponse`."""
    from skyinfra.model.states import ApiServerStatus

    told = transport.call("GET", "/v1/version").json()
    user = told.get("user")
    return Record(
        {
            **told,
            "status": ApiServerStatus.HEALTHY,
            "api_version": str(told.get("api", "")),
            "version": told.get("version", ""),
            "version_on_disk": transport.version(),
            "commit": told.get("commit") or "",
            "basic_auth_enabled": False,
            "user": Record({"id": user, "name": user}) if isinstance(user, str) else user and Record(user),
            "service_account_token_enabled": False,
            "ingress_basic_auth_enabled": False,
            "latest_version": None,
            "external_proxy_auth_enabled": False,
            "telemetry_enabled": False,
            "restrict_config_to_admins": False,
        }
    )


def api_start(
    *,
    deploy: bool = False,
    host: str = "127.0.0.1",
    foreground: bool = False,
    metrics: bool = False,
    metrics_port: int | None = None,
    enable_basic_auth: bool = False,
    port: int | None = None,
) -> None:
    """Start the local API server; nothing to do when it runs.

    `deploy` is for a team: it listens on all interfaces (on this machine only when `host` is ``localhost``, for a proxy
    in front), and on `port` or not at all. Raises `ValueError` when the configured endpoint is elsewhere or `host` is
    none of this machine's, `ApiServerConnectionError` when the server does not come up, `NotSupportedError` for what is
    not there yet.
    """
    given = endpoint.given_endpoint()
    if given is not None and urlsplit(given).hostname not in endpoint.LOOPBACK:
        unset = f"unset {endpoint.ENDPOINT_VARIABLES[0]}, or `skyinfra api logout`, first"
        raise ValueError(f"the endpoint {given} is not on this machine; {unset}")
    if host not in endpoint.LOOPBACK:
        raise ValueError(f"host must be one of {', '.join(endpoint.LOOPBACK)}, not {host!r}")
    asked = {"metrics": metrics or metrics_port, "enable_basic_auth": enable_basic_auth}
    for name, value in asked.items():
        if value:
            from skyinfra.client.not_yet import missing

            raise missing(f"api_start({name}=…)")
    from skyinfra.client import server_process

    if foreground:
        server_process.run_in_foreground(Home.from_env(), host, port, deploy)
        return
    server_process.start(Home.from_env(), host, port, deploy)


def api_stop() -> None:
    """Stop the local API server. Unfinished requests resume when it is started again.

    Raises `RuntimeError` when the environment names an endpoint elsewhere, or when the server had to be ended by force.
    """
    from skyinfra.client import server_process
    from skyinfra.model.exceptions import ApiServerConnectionError, with_hint

    given = endpoint.given_endpoint()
    if given is not None and urlsplit(given).hostname not in endpoint.LOOPBACK:
        raise RuntimeError(f"the API server at {given} is not on this machine and cannot be stopped from here")
    record = endpoint.read_server(Home.from_env())
    if record is None:
        return
    with contextlib.suppress(ApiServerConnectionError):  # it may end before it has answered
        transport.call("POST", "/v1/shutdown", start="no")
    if not server_process.end(record, STOP_S):
        raise with_hint(
            RuntimeError(f"the API server (pid {record['pid']}) did not stop in {STOP_S:.0f} s and was ended by force"),
            "unfinished requests resume at the next start",
        )


def api_server_logs(follow: bool = True, tail: int | None = None) -> None:
    """Print the server's own log; the last `tail` lines of it when given. A server elsewhere shows it to admins."""
    import sys
    import time

    if endpoint.given_endpoint() is not None:
        where = transport.path("server-log", tail=tail, follow=int(follow))
        with transport.open_stream(where, accept_silence_s=SILENT_LOG_S) as log:
            for chunk in log.chunks():
                sys.stdout.write(chunk.decode(errors="replace"))
                sys.stdout.flush()
        return
    home = Home.from_env()
    if not home.server_log.exists():
        raise RuntimeError(f"there is no server log at {home.server_log}")
    with open(home.server_log, errors="replace") as file:
        lines = file.readlines()
        sys.stdout.writelines(lines if tail is None else lines[-tail:] if tail > 0 else [])
        sys.stdout.flush()
        while follow and endpoint.read_server(home) is not None:
            line = file.readline()
            if line:
                sys.stdout.write(line)
                sys.stdout.flush()
            else:
                time.sleep(0.2)


def doctor() -> dict[str, Any]:
    """The server's report: processes, folders, stacks, locks, sockets and leases against the rows that own them."""
    return transport.call("GET", "/v1/doctor").json()
