"""`skyinfra start`: start clusters that are stopped, or in doubt."""

from __future__ import annotations

from typing import Annotated

import typer

from skyinfra.cli import ask, choose, out, ssh_entries
from skyinfra.cli.failures import UsageError
from skyinfra.cli.status import state_name

__all__ = ["start"]


def start(
    clusters: choose.Clusters = None,
    all_clusters: choose.AllClusters = False,
    all_users: choose.AllUsers = False,
    yes: choose.Yes = False,
    async_call: choose.Async = False,
    idle_minutes_to_autostop: Annotated[
        int | None, typer.Option("--idle-minutes-to-autostop", "-i", help="Stop again after so many idle minutes.")
    ] = None,
    wait_for: Annotated[str | None, typer.Option("--wait-for", help="jobs_and_ssh, jobs or none.")] = None,
    down: Annotated[bool, typer.Option("--down", help="Remove it then, rather than stop it.")] = False,
    retry_until_up: Annotated[
        bool, typer.Option("--retry-until-up", "-r", help="Try again until there is capacity.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", "-f", help="Start the agent of one that is up anew.")] = False,
) -> int:
    """Start clusters. Their disks, jobs' ledgers and autostop are as they were."""
    if down and idle_minutes_to_autostop is None:
        raise UsageError("--down needs --idle-minutes-to-autostop")
    waits_for = choose.wait_for(wait_for)
    names = []
    for record in choose.existing(clusters, all_clusters, all_users):
        if state_name(record["status"]) != "UP" or force:
            names.append(record["name"])
        elif not all_clusters:
            out.say(f"Cluster {record['name']} is up already.")
    if not names:
        return 0
    if not yes and not ask.confirm(f"{choose.named('Starting', names)}. Proceed?"):
        raise ask.aborted()
    from skyinfra.client.clusters import start as request

    requests = {name: request(name, idle_minutes_to_autostop, waits_for, retry_until_up, down, force) for name in names}
    code = choose.await_all(requests, "start", async_call)
    ssh_entries.refresh(None)
    return code
