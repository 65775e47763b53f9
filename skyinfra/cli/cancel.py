"""`skyinfra cancel`: cancel jobs of a cluster."""

from __future__ import annotations

from typing import Annotated

import typer

from skyinfra.cli import ask, out
from skyinfra.cli.failures import UsageError

__all__ = ["cancel"]


def cancel(
    cluster: Annotated[str, typer.Argument(metavar="CLUSTER", help="Cluster.")],
    jobs: Annotated[list[int] | None, typer.Argument(help="Job ids; your newest running job when absent.")] = None,
    all_jobs: Annotated[bool, typer.Option("--all", "-a", help="All your jobs on the cluster.")] = False,
    all_users: Annotated[bool, typer.Option("--all-users", "-u", help="All jobs of everybody.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    async_call: Annotated[bool, typer.Option("--async", help="Hand the request in and return.")] = False,
) -> int:
    """Cancel jobs. A finished job is left alone."""
    if jobs and (all_jobs or all_users):
        raise UsageError("job ids and --all or --all-users exclude each other")
    what = _what(jobs, all_jobs, all_users)
    asked = f"Cancelling {what} on cluster {cluster}"
    if not yes and not ask.confirm_destroying(asked, f"{asked}. Proceed?"):
        raise ask.aborted()
    from skyinfra.cli import wait
    from skyinfra.client.clusters import cancel as request
    from skyinfra.model import exceptions

    try:
        request_id = request(cluster, all_jobs, all_users, jobs or None)
        if async_call:
            out.say(f"Request {request_id} was handed in; follow it with `skyinfra api logs {request_id}`.")
            return 0
        wait.value_of(request_id)
    except exceptions.ClusterDoesNotExist as error:
        raise UsageError(str(error)) from error  # exit code 2, as SkyPilot's
    return 0


def _what(jobs: list[int] | None, all_jobs: bool, all_users: bool) -> str:
    if jobs:
        return f"job{'s' if len(jobs) > 1 else ''} {', '.join(map(str, jobs))}"
    if all_users:
        return "all jobs of all users"
    return "all your jobs" if all_jobs else "your newest running job"
