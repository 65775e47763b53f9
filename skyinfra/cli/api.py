"""`skyinfra api`: the API server and its requests."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from skyinfra.cli import ask, out, token
from skyinfra.cli.failures import UsageError
from skyinfra.cli.history import counts
from skyinfra.cli.status import check_output, state_name
from skyinfra.cli.text import ago, table

__all__ = ["COMMANDS"]

OWN_ONLY = ("127.0.0.1", "localhost", "::1")
"""Hosts that only this machine can reach."""

Output = Annotated[str, typer.Option("--output", "-o", metavar="table|json", help="Output format.")]


def start(
    deploy: Annotated[bool, typer.Option("--deploy", help="For a team: on all interfaces.")] = False,
    host: Annotated[
        str, typer.Option("--host", help="Address to listen on; with --deploy `localhost` for a proxy in front.")
    ] = "127.0.0.1",
    foreground: Annotated[bool, typer.Option("--foreground", help="Stay on this terminal.")] = False,
    enable_basic_auth: Annotated[bool, typer.Option("--enable-basic-auth", help="Not yet.")] = False,
    port: Annotated[int | None, typer.Option("--port", help="Port; the next free one when absent.")] = None,
) -> int:
    """Start the local API server."""
    from skyinfra.client.api import api_start
    from skyinfra.client.endpoint import read_server
    from skyinfra.model.home import Home

    running = read_server(Home.from_env())
    if running is None:
        api_start(deploy=deploy, host=host, foreground=foreground, enable_basic_auth=enable_basic_auth, port=port)
        running = read_server(Home.from_env())
        if foreground:
            return 0
        word = "runs"
    else:
        word = "runs already"
    where = f" at http://{running['host']}:{running['port']} (pid {running['pid']})" if running else ""
    out.say(f"The API server {word}{where}.")
    if deploy:
        out.say(
            "Tokens for people: `skyinfra api token create NAME --user USER`; they log in with `skyinfra api login`."
        )
    elif running and running["host"] not in OWN_ONLY:
        out.say(
            f"warning: it listens on {running['host']}: who can reach it needs only a token, which travels in clear; "
            "for a team use --deploy and put a proxy with TLS in front"
        )
    return 0


def login(
    endpoint: Annotated[str | None, typer.Option("--endpoint", "-e", help="Address of the server.")] = None,
    relogin: Annotated[bool, typer.Option("--relogin", help="Do not use the token that is kept.")] = False,
    token: Annotated[str | None, typer.Option("--token", "-t", help="A token: sky_….")] = None,
    no_browser: Annotated[bool, typer.Option("--no-browser", hidden=True)] = False,
) -> int:
    """Use a server elsewhere: keep its address and your token for every later command."""
    from skyinfra.client.login import api_login, kept
    from skyinfra.model.exceptions import ApiServerAuthenticationError

    if endpoint is None and kept().endpoint is None and out.interactive():
        endpoint = ask.line("Address of the server: ")
    try:
        api_login(endpoint, relogin, token, no_browser)
    except ApiServerAuthenticationError:
        if token is not None or not out.interactive():
            raise
        api_login(endpoint, relogin, ask.hidden_line("Token (sky_…): "), no_browser)
    out.say(f"Logged in to {kept().endpoint}.")
    return 0


def logout() -> int:
    """Forget the server and the token; the next command uses the local server."""
    from skyinfra.client.login import api_logout

    out.say("Logged out." if api_logout() else "Not logged in.")
    return 0


def stop() -> int:
    """Stop the local API server; unfinished requests resume when it is started again."""
    from skyinfra.client.api import api_stop
    from skyinfra.client.endpoint import given_endpoint, read_server
    from skyinfra.model.home import Home

    if given_endpoint() is None and read_server(Home.from_env()) is None:
        out.say("The API server is not running.")
        return 0
    api_stop()
    out.say("The API server was stopped.")
    return 0


def status(
    request_ids: Annotated[list[str] | None, typer.Argument(help="Request ids or their beginnings.")] = None,
    all_status: Annotated[bool, typer.Option("--all-status", "-a", help="Finished requests, too.")] = False,
    limit: Annotated[int, typer.Option("--limit", "-l", help="At most so many.")] = 50,
    cluster: Annotated[str | None, typer.Option("--cluster", "-c", help="Requests about one cluster.")] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Clusters and stack operations, too.")] = False,
    all_users: Annotated[bool, typer.Option("--all-users", "-u", help="Everybody's requests.")] = False,
    output: Output = "table",
) -> int:
    """Show requests, and with -v the stack operations that they led to."""
    check_output(output)
    from skyinfra.client.requests import api_status

    rows = api_status(request_ids or None, all_status, limit, cluster_name=cluster, _all_users=all_users)
    if output == "json":
        out.print_json(rows)
        return 0
    if not rows:
        out.say("No requests found." if all_status or request_ids else "No active requests.")
        return 0
    columns = ["ID", "User", "Name", *(["Cluster"] if verbose else []), "Created", "Status"]
    print(table(columns + (["Operations"] if verbose else []), [_request(row, verbose) for row in rows]))
    return 0


def info(output: Output = "table") -> int:
    """Show the API server's address, version and health."""
    check_output(output)
    from skyinfra.client import transport
    from skyinfra.client.api import api_info
    from skyinfra.client.endpoint import locate

    told = api_info()
    if output == "json":
        out.print_json({**told, "endpoint": locate().url})
        return 0
    print(f"API server:  {locate().url}")
    print(f"  status:    {state_name(told['status'])}")
    print(f"  version:   {told['version']} (API {told['api_version']}), commit {told['commit'] or 'unknown'}")
    print(f"  client:    {transport.version()}")
    for key, name in (("user", "user"), ("home", "folder"), ("pid", "pid")):
        value = told.get(key)
        if value is not None:
            print(f"  {name + ':':<10} {value['name'] if isinstance(value, dict) else value}")
    return 0


def logs(
    request_id: Annotated[str | None, typer.Argument(help="Request id or its beginning.")] = None,
    server_logs: Annotated[bool, typer.Option("--server-logs", help="The API server's own log.")] = False,
    log_path: Annotated[str | None, typer.Option("--log-path", "-l", hidden=True)] = None,
    tail: Annotated[int | None, typer.Option("--tail", help="The last N lines.", min=0)] = None,
    follow: Annotated[bool, typer.Option("--follow/--no-follow", help="Follow to the request's end.")] = True,
) -> int:
    """Show what a request has done so far, and follow it to its end."""
    from skyinfra.cli.wait import leaving, show
    from skyinfra.client import api, requests

    if server_logs:
        with leaving("the API server goes on"):
            api.api_server_logs(follow, tail)
        return 0
    if request_id is None and log_path is None:
        raise UsageError("give a request id, or --server-logs")
    found = requests.RequestId(request_id or "")
    with leaving(f"the request goes on; rejoin it with `skyinfra api logs {request_id}`"):
        if tail is not None or log_path is not None:
            requests.stream_and_get(found, log_path, tail, follow)
        else:
            show(found, sys.stdout, follow)
            if follow:
                requests.get(found)  # for its error, if it has one
    return 0


def cancel(
    request_ids: Annotated[list[str] | None, typer.Argument(help="Request ids or their beginnings.")] = None,
    all_requests: Annotated[bool, typer.Option("--all", "-a", help="All your active requests.")] = False,
    all_users: Annotated[bool, typer.Option("--all-users", "-u", help="All active requests of everybody.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> int:
    """Cancel requests."""
    if bool(request_ids) == (all_requests or all_users):
        raise UsageError("give request ids, or --all or --all-users")
    from skyinfra.client.requests import api_cancel, get

    if not request_ids and not yes:
        whose = "all users'" if all_users else "all your"
        if not ask.confirm_destroying(f"Cancelling {whose} requests", f"Cancelling {whose} requests. Proceed?"):
            raise ask.aborted()
    cancelled = get(api_cancel(request_ids or None, all_users, silent=True))
    for request_id in cancelled:
        print(request_id)
    out.say(f"Cancelled {len(cancelled)} request(s)." if cancelled else "No requests need to be cancelled.")
    return 0


COMMANDS = {
    "start": start,
    "stop": stop,
    "status": status,
    "info": info,
    "logs": logs,
    "cancel": cancel,
    "login": login,
    "logout": logout,
    "token": token.COMMANDS,
}


def _request(row: Any, verbose: bool) -> list[object]:
    short = row["request_id"] if verbose else row["request_id"][:8]
    cells: list[object] = [short, row.get("user_name"), row.get("name")]
    cells += [row.get("cluster_name")] if verbose else []
    cells += [ago(row.get("created_at")), state_name(row["status"])]
    return cells + ([", ".join(_operation(one) for one in row.get("operations") or [])] if verbose else [])


def _operation(one: dict[str, Any]) -> str:
    """``up v3 +2 ~0 -1 succeeded``: a stack operation in a few words."""
    changes = one.get("changes") or {}
    version = f" v{one['version']}" if one.get("version") is not None else ""
    changed = f" {counts(changes)}" if changes else ""
    return f"{one.get('kind')}{version}{changed} {one.get('state')}"
