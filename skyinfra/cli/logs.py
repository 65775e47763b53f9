"""`skyinfra logs`: show a job's log, fetch the logs of several, or say how a job stands."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from skyinfra.cli import out
from skyinfra.cli.ask import only_one
from skyinfra.cli.failures import UsageError

__all__ = ["logs"]


def logs(
    cluster: Annotated[str, typer.Argument(metavar="CLUSTER", help="Cluster.")],
    job_ids: Annotated[list[str] | None, typer.Argument(help="Job ids; the latest job when absent.")] = None,
    sync_down: Annotated[bool, typer.Option("--sync-down", "-s", help="Fetch the logs to ~/sky_logs.")] = False,
    status: Annotated[bool, typer.Option("--status", help="Say how the job stands, and exit with its code.")] = False,
    follow: Annotated[bool, typer.Option("--follow/--no-follow", help="Follow the log to the job's end.")] = True,
    tail: Annotated[int, typer.Option("--tail", help="Begin with the last N lines; 0 = all.", min=0)] = 0,
    provision: Annotated[bool, typer.Option("--provision", help="How the cluster was made.")] = False,
    worker: Annotated[
        int | None, typer.Option("--worker", "-w", help="With --provision: one node's part.", min=0)
    ] = None,
    rank: Annotated[
        int | None, typer.Option("--rank", help="Only this rank's part of a job on several nodes.", min=0)
    ] = None,
    hook: Annotated[str | None, typer.Option("--hook", help="The log of a hook (not yet).")] = None,
) -> int:
    """Show the log of a job.

    Exits with the job's outcome: 0 succeeded or not followed to its end, 100 failed, 102 no such job, 103 cancelled;
    with --status also 101, not finished.
    """
    only_one(sync_down=sync_down, status=status, provision=provision)
    if hook is not None:
        from skyinfra.client.not_yet import missing

        raise missing("logs --hook")
    if worker is not None and not provision:
        raise UsageError("--worker goes with --provision")
    if provision:
        return _provision(cluster, worker, follow, tail)
    ids = [_number(word) for word in job_ids or []]
    if sync_down:
        return _fetch(cluster, [str(number) for number in ids] or None)
    if status:
        return _say_states(cluster, ids or None)
    if len(ids) > 1:
        raise UsageError("one job's log can be shown at a time; fetch several with --sync-down")
    from skyinfra.cli import job

    return job.follow(cluster, ids[0] if ids else None, follow=follow, tail=tail, rank=rank)


def _provision(cluster: str, worker: int | None, follow: bool, tail: int) -> int:
    from skyinfra.cli.painter import Painter
    from skyinfra.cli.wait import leaving
    from skyinfra.client import history

    with leaving("the request goes on"):
        if tail:
            return history.tail_provision_logs(cluster, worker, follow, tail)
        with Painter(sys.stdout) as painter:
            for event in history.provision_events(cluster, worker, follow):
                painter.show(event)
    return 0


def _number(word: str) -> int:
    try:
        return int(word)
    except ValueError:
        raise UsageError(f"a job id is a number, not {word!r}") from None


def _fetch(cluster: str, ids: list[str] | None) -> int:
    from skyinfra.client.logs import download_logs

    folders = download_logs(cluster, ids)
    for job_id, folder in folders.items():
        out.say(f"Job {job_id} logs: {folder}")
    missing = [number for number in ids or [] if number not in folders]
    if missing or not folders:
        out.error(f"no such job on {cluster}: {', '.join(missing)}" if missing else f"there is no job on {cluster}")
        return 102
    return 0


def _say_states(cluster: str, ids: list[int] | None) -> int:
    """The states; the exit code is the worst one's."""
    from skyinfra.client.clusters import job_status
    from skyinfra.client.requests import get
    from skyinfra.model.exceptions import JobExitCode

    codes: list[int] = []
    for job_id, state in get(job_status(cluster, ids)).items():
        codes.append(int(JobExitCode.from_job_status(state)))
        if job_id is None:
            out.say(f"There is no job on {cluster}.")
        else:
            print(f"Job {job_id}: {getattr(state, 'value', state) or 'not found'}")
    return max(codes, default=int(JobExitCode.NOT_FOUND))
