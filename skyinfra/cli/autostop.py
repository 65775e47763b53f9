"""`skyinfra autostop`: when clusters stop, or go, by themselves."""

from __future__ import annotations

from typing import Annotated

import typer

from skyinfra.cli import ask, choose, out
from skyinfra.cli.failures import UsageError

__all__ = ["autostop"]

DEFAULT_IDLE_MINUTES = 5


def autostop(
    clusters: choose.Clusters = None,
    all_clusters: choose.AllClusters = False,
    all_users: choose.AllUsers = False,
    yes: choose.Yes = False,
    async_call: choose.Async = False,
    idle_minutes: Annotated[
        int | None,
        typer.Option("--idle-minutes", "-i", help=f"Minutes without activity; {DEFAULT_IDLE_MINUTES} if not given."),
    ] = None,
    wait_for: Annotated[str | None, typer.Option("--wait-for", help="jobs_and_ssh, jobs or none.")] = None,
    cancel: Annotated[bool, typer.Option("--cancel", help="Call it off.")] = False,
    down: Annotated[bool, typer.Option("--down", help="Remove the cluster, rather than stop it.")] = False,
) -> int:
    """Stop, or with --down remove, clusters when they have been idle for so long. Each call begins that time anew."""
    if cancel and idle_minutes is not None:
        raise UsageError("--cancel and --idle-minutes exclude each other")
    waits_for = choose.wait_for(wait_for)
    minutes = -1 if cancel else DEFAULT_IDLE_MINUTES if idle_minutes is None else idle_minutes
    names = [record["name"] for record in choose.existing(clusters, all_clusters, all_users)]
    if not names:
        return 0
    what = choose.named("Calling off autostop of" if minutes < 0 else "Setting autostop of", names)
    if not yes and not ask.confirm(f"{what}. Proceed?"):
        raise ask.aborted()
    from skyinfra.client.clusters import autostop as request

    code = choose.await_all({name: request(name, minutes, waits_for, down) for name in names}, "set", async_call)
    if code == 0 and not async_call:
        after = f"after {max(1, minutes)} idle minutes"
        out.say(f"{', '.join(names)}: " + ("autostop called off." if minutes < 0 else f"{_ends(down)} {after}."))
    return code


def _ends(down: bool) -> str:
    return "to be removed" if down else "to be stopped"
