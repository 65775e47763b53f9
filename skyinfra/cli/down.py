"""`skyinfra down`: remove clusters. Exit code 0 means that the clouds show nothing of them any more."""

from __future__ import annotations

from typing import Annotated

import typer

from skyinfra.cli import ask, choose, ssh_entries

__all__ = ["down"]


def down(
    clusters: choose.Clusters = None,
    all_clusters: choose.AllClusters = False,
    all_users: choose.AllUsers = False,
    yes: choose.Yes = False,
    async_call: choose.Async = False,
    purge: Annotated[bool, typer.Option("--purge", "-p", help="Forget a cluster even if its cloud fails.")] = False,
    graceful: Annotated[bool, typer.Option("--graceful", help="End its jobs and flush its mounts first.")] = False,
    graceful_timeout: Annotated[
        int | None, typer.Option("--graceful-timeout", help="Seconds that this may take.")
    ] = None,
) -> int:
    """Remove clusters and everything that they hold."""
    names = [record["name"] for record in choose.existing(clusters, all_clusters, all_users)]
    if not names:
        return 0
    what = choose.named("Removing", names)
    if not yes and not ask.confirm_destroying(what, f"{what}. Proceed?"):
        raise ask.aborted()
    from skyinfra.client.clusters import down as request

    requests = {name: request(name, purge, graceful, graceful_timeout) for name in names}
    code = choose.await_all(requests, "remove", async_call)
    ssh_entries.refresh(None)
    return code
