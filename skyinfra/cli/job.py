"""Follow a job at the terminal: its log on standard output, markers and what to do next on standard error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from skyinfra.cli import out
from skyinfra.cli.wait import leaving

__all__ = ["follow", "outcome"]


def follow(
    cluster: str,
    job_id: int | None,
    *,
    follow: bool = True,
    tail: int = 0,
    rank: int | None = None,
    hints: Sequence[str] = (),
) -> int:
    """Show a job's log, then `hints`, then, for a job that did not succeed, its outcome as the last line.

    The exit code: the job's (0, 100, 103), 102 when there is no such job.
    """
    from skyinfra.client.logs import Follower, to_stdout

    follower = Follower(cluster, job_id, follow, tail, rank, on_state=_tell)
    name = "" if job_id is None else f" {job_id}"
    with leaving(f"the job goes on; see its log with `skyinfra logs {cluster}{name}`"):
        to_stdout(follower.chunks())
    row = follower.row
    if row is None:
        missing = f"job {job_id} does not exist" if job_id is not None else "there is no job"
        out.error(f"{missing} on cluster {cluster}", f"`skyinfra queue {cluster}` shows its jobs")
        return follower.exit_code()
    if follower.truncated:
        out.say("note: the node cannot be reached any more; the end of the log may be missing")
    for hint in hints:
        out.say(hint.replace("{job_id}", str(row["job_id"])))
    if follow and row["state"] != "SUCCEEDED":
        out.say(outcome(row))
    return follower.exit_code()


def outcome(row: dict[str, Any]) -> str:
    """``Job 3 FAILED (exit code 3).``: what a job came to and the exit code of its own that says why."""
    text = f"Job {row['job_id']} {row['state']}"
    details = _codes(row.get("exit_codes") or [], row["state"])
    if row.get("reason"):
        details.append(str(row["reason"]))
    return f"{text} ({'; '.join(details)})." if details else f"{text}."


def _codes(codes: Sequence[int], state: str) -> list[str]:
    bad = [(rank, code) for rank, code in enumerate(codes) if code != 0]
    if not bad or state == "CANCELLED":
        return []
    # those that were ended, or lost with their node, say nothing about why
    rank, code = next((one for one in bad if one[1] not in (137, 255)), bad[0])
    what = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
    where = f" on rank {rank}" if len(codes) > 1 else ""
    return [("setup: " if state == "FAILED_SETUP" else "") + what + where]


def _tell(moment: str, row: dict[str, Any]) -> None:
    if moment == "waiting":
        count = str(row.get("resources") or "1x").partition("x")[0]
        out.say(f"Waiting for task resources on {count} node(s).")
    elif moment == "started":
        out.say("Job started. Streaming logs...")
    elif moment == "finished":
        out.say(f"Job finished (status: {row['state']}).")
