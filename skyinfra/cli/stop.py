"""`skyinfra stop`: stop clusters. What they run ends, their disks stay."""

from __future__ import annotations

from typing import Annotated

import typer

from skyinfra.cli import ask, choose

__all__ = ["stop"]


def stop(
    clusters: choose.Clusters = None,
    all_clusters: choose.AllClusters = False,
    all_users: choose.AllUsers = False,
    yes: choose.Yes = False,
    async_call: choose.Async = False,
    graceful: Annotated[bool, typer.Option("--graceful", help="End its jobs and flush its mounts first.")] = False,
    graceful_timeout: Annotated[
        int | None, typer.Option("--graceful-timeout", help="Seconds that this may take.")
    ] = None,
) -> int:
    """Stop clusters: what they run ends, their disks stay."""
    names = [record["name"] for record in choose.existing(clusters, all_clusters, all_users)]
    if not names:
        return 0
    what = choose.named("Stopping", names)
    if not yes and not ask.confirm_destroying(what, f"{what}. Proceed?"):
        raise ask.aborted()
    from skyinfra.client.clusters import stop as request

    requests = {name: request(name, graceful=graceful, graceful_timeout=graceful_timeout) for name in names}
    return choose.await_all(requests, "stop", async_call)
