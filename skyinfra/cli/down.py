"""`skyinfra down`: remove clusters. Exit code 0 means that the clouds show nothing of them any more."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from skyinfra.cli import ask, out
from skyinfra.cli.failures import Left, UsageError, report

__all__ = ["down"]


def down(
    clusters: Annotated[list[str] | None, typer.Argument(help="Names or globs.")] = None,
    all_clusters: Annotated[bool, typer.Option("--all", "-a", help="All your clusters.")] = False,
    all_users: Annotated[bool, typer.Option("--all-users", "-u", help="Everybody's clusters.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    async_call: Annotated[bool, typer.Option("--async", help="Hand the requests in and return.")] = False,
    purge: Annotated[bool, typer.Option("--purge", "-p", help="Forget a cluster even if its cloud fails.")] = False,
    graceful: Annotated[bool, typer.Option("--graceful", help="End its jobs and flush its mounts first.")] = False,
    graceful_timeout: Annotated[
        int | None, typer.Option("--graceful-timeout", help="Seconds that this may take.")
    ] = None,
) -> int:
    """Remove clusters and everything that they hold."""
    if not clusters and not all_clusters and not all_users:
        raise UsageError("name the clusters, or use --all")
    names = _names(clusters or [], all_clusters, all_users)
    if not names:
        return 0
    what = f"Removing {len(names)} cluster{'s' if len(names) > 1 else ''}: {', '.join(names)}"
    if not yes and not ask.confirm_destroying(what, f"{what}. Proceed?"):
        raise ask.aborted()
    from skyinfra.client.clusters import down as request

    requests = {name: request(name, purge, graceful, graceful_timeout) for name in names}
    if async_call:
        for name, request_id in requests.items():
            out.say(f"Request {request_id} was handed in to remove {name}.")
        return 0
    return max([_await(request_id) for request_id in requests.values()])


def _await(request_id: Any) -> int:
    from skyinfra.cli import wait

    try:
        wait.value_of(request_id)
    except Left:
        raise
    except Exception as error:  # the others are waited for all the same
        return report(error)
    return 0


def _names(wanted: list[str], all_clusters: bool, all_users: bool) -> list[str]:
    """The existing clusters meant; what does not exist is said and left out."""
    from skyinfra.client.clusters import status
    from skyinfra.client.requests import get

    ask_for = None if all_clusters or all_users else wanted
    names = [record["name"] for record in get(status(ask_for, all_users=all_users or not all_clusters))]
    missing = [name for name in wanted if name not in names and not set(name) & set("*?[")]
    if missing:
        out.say(f"Cluster(s) not found: {', '.join(missing)}.")
    elif not names:
        out.say("No existing clusters.")
    return names
