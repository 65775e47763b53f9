"""`skyinfra status`: clusters as a table or JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from skyinfra.cli import out
from skyinfra.cli.ask import only_one
from skyinfra.cli.failures import UsageError
from skyinfra.cli.text import ago, shortened, table
from skyinfra.client.caller import use_workspace

if TYPE_CHECKING:
    from skyinfra.model.records import Record

__all__ = ["status"]

STATE_COLOURS = {"UP": "green", "INIT": "cyan", "AUTOSTOPPING": "yellow", "STOPPED": "yellow"}


def status(
    clusters: Annotated[list[str] | None, typer.Argument(help="Names or globs; all clusters when absent.")] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="More columns.")] = False,
    refresh: Annotated[bool, typer.Option("--refresh", "-r", help="Ask the clouds first.")] = False,
    ip: Annotated[bool, typer.Option("--ip", help="Print the head's address of one cluster.")] = False,
    endpoints: Annotated[bool, typer.Option("--endpoints", help="Print the endpoints of one cluster.")] = False,
    endpoint: Annotated[int | None, typer.Option("--endpoint", help="Print the endpoint of one port.")] = None,
    show_managed_jobs: Annotated[bool, typer.Option("--show-managed-jobs/--no-show-managed-jobs", hidden=True)] = True,
    show_services: Annotated[bool, typer.Option("--show-services/--no-show-services", hidden=True)] = True,
    show_pools: Annotated[bool, typer.Option("--show-pools/--no-show-pools", hidden=True)] = True,
    all_users: Annotated[bool, typer.Option("--all-users", "-u", help="Everybody's clusters.")] = False,
    workspace: Annotated[str | None, typer.Option("--workspace", "-w", help="Clusters of one workspace.")] = None,
    output: Annotated[str, typer.Option("--output", "-o", metavar="table|json", help="Output format.")] = "table",
) -> int:
    """Show clusters."""
    check_output(output)
    only_one(ip=ip, endpoints=endpoints, endpoint=endpoint is not None)
    wanted = "--ip" if ip else "--endpoints" if endpoints else "--endpoint" if endpoint is not None else None
    if wanted and len(clusters or []) != 1:
        raise UsageError(f"{wanted} needs the name of one cluster")
    use_workspace(workspace)
    if endpoints or endpoint is not None:
        return _print_endpoints((clusters or [""])[0], endpoint)
    from skyinfra.client.clusters import status as ask
    from skyinfra.client.requests import get
    from skyinfra.model.states import StatusRefreshMode

    mode = StatusRefreshMode.FORCE if refresh else StatusRefreshMode.NONE
    records = get(ask(clusters or None, mode, all_users))
    if ip:
        return _print_ip((clusters or [""])[0], records)
    if output == "json":
        out.print_json(records)
        return 0
    _say_missing(clusters or [], records)
    if records:
        print(_table(records, verbose, all_users))
    elif not clusters:
        out.say("No existing clusters.")
    return 0


def check_output(output: str) -> None:
    """Raises `UsageError` for an unknown output format."""
    if output not in ("table", "json"):
        raise UsageError(f"--output must be table or json, not {output!r}")


def state_name(state: Any) -> str:
    """The word for a state, which may be an enum member or a newer server's string."""
    return str(getattr(state, "value", state))


def infra(record: Record) -> str:
    """``AWS (us-east-1)``, or the cloud alone."""
    cloud, region = record.get("cloud"), record.get("region")
    if not cloud:
        return "-"
    return f"{cloud} ({region})" if region and region != cloud else str(cloud)


def _print_ip(name: str, records: list[Record]) -> int:
    handle = records[0].get("handle") if records else None
    if handle is None or not handle.head_ip:
        why = "does not exist" if not records else f"has no address (it is {state_name(records[0]['status'])})"
        out.error(f"cluster {name} {why}")
        return 1
    print(handle.head_ip)
    return 0


def _print_endpoints(name: str, port: int | None) -> int:
    from skyinfra.client.clusters import endpoints
    from skyinfra.client.requests import get

    found = get(endpoints(name, port))
    if port is not None:
        print(found[port])
        return 0
    for one, address in found.items():
        print(f"{one}: {address}")
    if not found:
        out.say(f"Cluster {name} has no open ports.")
    return 0


def _say_missing(wanted: list[str], records: list[Record]) -> None:
    found = {record["name"] for record in records}
    missing = [name for name in wanted if name not in found and not set(name) & set("*?[")]
    if missing:
        out.say(f"Cluster(s) not found: {', '.join(missing)}.")


def _table(records: list[Record], verbose: bool, all_users: bool) -> str:
    columns = ["NAME", *(["USER", "USER_ID"] if all_users else []), "WORKSPACE", "INFRA", "RESOURCES", "STATUS"]
    columns += ["AUTOSTOP", "LAUNCHED", *(["HEAD_IP", "HEALTH", "COMMAND", "LAST_EVENT"] if verbose else [])]
    rows = [_row(record, verbose, all_users) for record in records]
    text = table(columns, rows)
    return _coloured(text)


def _row(record: Record, verbose: bool, all_users: bool) -> list[object]:
    resources = record.get("resources_str_full" if verbose else "resources_str")
    row: list[object] = [record["name"]]
    if all_users:
        row += [record.get("user_name"), record.get("user_hash")]
    row += [record.get("workspace"), infra(record), resources, state_name(record["status"])]
    row += [_autostop(record), ago(record.get("launched_at"))]
    if verbose:
        handle = record.get("handle")
        row += [handle and handle.head_ip, _health(record), shortened(record.get("last_creation_command"), 60)]
        row.append(shortened(record.get("last_event"), 60))
    return row


def _health(record: Record) -> str | None:
    """READY when all of its nodes are; else each one's state, with what is wrong."""
    nodes = record.get("node_health") or {}
    if not nodes:
        return None
    if all(one.get("state") == "READY" for one in nodes.values()):
        return "READY"
    states = [_node_state(nodes.get(str(slot)) or {}) for slot in range(record.get("nodes") or 1)]
    return states[0] if len(states) == 1 else ", ".join(f"{slot}: {state}" for slot, state in enumerate(states))


def _node_state(one: Mapping[str, Any]) -> str:
    """A node that nobody complained about is READY."""
    state = one.get("state") or "READY"
    return state if state == "READY" else f"{state}({one.get('reason') or '?'})"


def _autostop(record: Record) -> str | None:
    minutes = record.get("autostop")
    if minutes is None or minutes < 0:
        return None
    return f"{minutes}m" + (" (down)" if record.get("to_down") else "")


def _coloured(text: str) -> str:
    """Colour comes after alignment, which would count its escapes as characters."""
    for word, name in STATE_COLOURS.items():
        text = text.replace(f"  {word} ", f"  {out.colour(word, name)} ")
    return text
