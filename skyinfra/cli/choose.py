"""Which clusters a command means, and waiting for what it asked of each: shared by stop, start, autostop and down."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from skyinfra.cli import out
from skyinfra.cli.failures import Left, UsageError, report

if TYPE_CHECKING:
    from skyinfra.model.records import Record

__all__ = ["AllClusters", "AllUsers", "Async", "Clusters", "Yes", "await_all", "existing", "named", "wait_for"]

Clusters = Annotated[list[str] | None, typer.Argument(help="Names or globs.")]
AllClusters = Annotated[bool, typer.Option("--all", "-a", help="All your clusters.")]
AllUsers = Annotated[bool, typer.Option("--all-users", "-u", help="Everybody's clusters.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Async = Annotated[bool, typer.Option("--async", help="Hand the requests in and return.")]


def existing(wanted: list[str] | None, all_clusters: bool, all_users: bool) -> list[Record]:
    """Records of the clusters meant; what does not exist is said and left out. Raises `UsageError` without any word."""
    if not wanted and not all_clusters and not all_users:
        raise UsageError("name the clusters, or use --all")
    from skyinfra.client.clusters import status
    from skyinfra.client.requests import get

    wanted = wanted or []
    ask_for = None if all_clusters or all_users else wanted
    records = get(status(ask_for, all_users=all_users or not all_clusters))
    names = {record["name"] for record in records}
    missing = [name for name in wanted if name not in names and not set(name) & set("*?[")]
    if missing:
        out.say(f"Cluster(s) not found: {', '.join(missing)}.")
    elif not names:
        out.say("No existing clusters.")
    return records


def named(verb: str, names: list[str]) -> str:
    """``Stopping 2 clusters: a, b``."""
    return f"{verb} {len(names)} cluster{'s' if len(names) > 1 else ''}: {', '.join(names)}"


def await_all(requests: Mapping[str, Any], purpose: str, async_call: bool) -> int:
    """The exit code of all: each is waited for, also when another failed."""
    if async_call:
        for name, request_id in requests.items():
            out.say(f"Request {request_id} was handed in to {purpose} {name}.")
        return 0
    return max([_await(request_id) for request_id in requests.values()], default=0)


def _await(request_id: Any) -> int:
    from skyinfra.cli import wait

    try:
        wait.value_of(request_id)
    except Left:
        raise
    except Exception as error:  # the others are waited for all the same
        return report(error)
    return 0


def wait_for(text: str | None) -> Any:
    """The value of `--wait-for`. Raises `UsageError`."""
    if text is None:
        return None
    from skyinfra.model.states import AutostopWaitFor

    try:
        return AutostopWaitFor(text)
    except ValueError:
        known = ", ".join(str(member.value) for member in AutostopWaitFor)
        raise UsageError(f"--wait-for must be one of {known}, not {text!r}") from None
