"""`skyinfra queue`: the jobs of clusters as tables or JSON."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from skyinfra.cli import out
from skyinfra.cli.status import check_output, state_name
from skyinfra.cli.text import ago, duration, shortened, table

__all__ = ["queue"]

COLUMNS = ("ID", "NAME", "USER", "SUBMITTED", "STARTED", "DURATION", "RESOURCES", "STATUS", "LOG", "GIT COMMIT")


def queue(
    clusters: Annotated[list[str] | None, typer.Argument(help="Clusters; all that are up when absent.")] = None,
    all_users: Annotated[bool, typer.Option("--all-users", "-u", help="Everybody's jobs.")] = False,
    skip_finished: Annotated[bool, typer.Option("--skip-finished", "-s", help="Unfinished jobs only.")] = False,
    output: Annotated[str, typer.Option("--output", "-o", metavar="table|json", help="Output format.")] = "table",
) -> int:
    """Show the jobs of clusters."""
    check_output(output)
    names = clusters or _up_clusters(all_users)
    found: list[tuple[str, list[Any]]] = []
    for name in names:
        jobs = _jobs_of(name, skip_finished, all_users)
        if jobs is not None:
            found.append((name, jobs))
    if output == "json":
        out.print_json([{**job, "cluster_name": name} for name, jobs in found for job in jobs])
        return 0
    for number, (name, jobs) in enumerate(found):
        print(("\n" if number else "") + f"Job queue of cluster {name}")
        print(table(COLUMNS, [_row(job) for job in jobs]) if jobs else "No jobs.")
    if not names:
        out.say("No clusters are up.")
    return 0


def _up_clusters(all_users: bool) -> list[str]:
    from skyinfra.client.clusters import status
    from skyinfra.client.requests import get

    return [record["name"] for record in get(status(None, all_users=all_users)) if state_name(record["status"]) == "UP"]


def _jobs_of(name: str, skip_finished: bool, all_users: bool) -> list[Any] | None:
    """The jobs; None, and a line said, for a cluster that has no queue to show."""
    from skyinfra.client.clusters import queue as ask
    from skyinfra.client.requests import get
    from skyinfra.model import exceptions

    try:
        return get(ask(name, skip_finished, all_users))
    except exceptions.ClusterDoesNotExist:
        out.say(f"Cluster(s) not found: {name}.")
    except exceptions.ClusterNotUpError as error:
        out.say(f"Cluster {name} has no queue to show: {error}")
    return None


def _row(job: Any) -> list[object]:
    metadata = job.get("metadata") or {}
    started, ended = job.get("start_at"), job.get("end_at")
    return [
        job["job_id"],
        shortened(job.get("job_name"), 30),
        job.get("username"),
        ago(job.get("submitted_at")),
        ago(started),
        duration(_elapsed(started, ended)),
        job.get("resources"),
        state_name(job["status"]),
        job.get("log_path"),
        shortened(metadata.get("git_commit"), 12),
    ]


def _elapsed(started: float | None, ended: float | None) -> float | None:
    import time

    if started is None or started <= 0:
        return None
    return (ended or time.time()) - started
