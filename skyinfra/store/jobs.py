"""The mirror of the agents' job ledgers, written from their event streams. The ledger on the node is the truth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import delete, insert, select
from sqlalchemy.engine import Connection

from skyinfra.runtime.protocol import FINAL_STATES
from skyinfra.store.tables import jobs


def mirror(db: Connection, cluster_id: str, rows: Sequence[dict[str, Any]], at: float) -> None:
    """Store the newest row of each job."""
    newest = {row["job_id"]: row for row in rows}
    if not newest:
        return
    db.execute(delete(jobs).where(jobs.c.cluster_id == cluster_id, jobs.c.job_id.in_(list(newest))))
    db.execute(
        insert(jobs),
        [
            {"cluster_id": cluster_id, "job_id": job_id, "state": row["state"], "row": row, "updated_at": at}
            for job_id, row in newest.items()
        ],
    )


def end_unfinished(db: Connection, cluster_id: str, at: float, reason: str) -> None:
    """The node was stopped: what it had not finished is over. Its ledger says how when the node is there again."""
    left = [row for row in of_cluster(db, cluster_id) if row["state"] not in FINAL_STATES]
    mirror(db, cluster_id, [{**row, "state": "FAILED_DRIVER", "ended_at": at, "reason": reason} for row in left], at)


def of_cluster(db: Connection, cluster_id: str) -> list[dict[str, Any]]:
    """Job rows, oldest first."""
    return list(db.execute(select(jobs.c.row).where(jobs.c.cluster_id == cluster_id).order_by(jobs.c.job_id)).scalars())
