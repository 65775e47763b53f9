"""Queries on clusters, their history, attempts and shortages. A change and its event share one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.engine import Connection, Row

from skyinfra.store import costs
from skyinfra.store.tables import attempts, cluster_events, clusters, jobs, secrets, shortages

__all__ = ["Stale"]

SHORTAGE_S = 600.0
"""How long a place that had no room is tried last."""


class Stale(Exception):
    """The cluster's row has moved on since it was read: read it again rather than insist."""


def get(db: Connection, workspace: str, name: str) -> Row[Any] | None:
    return db.execute(select(clusters).where(clusters.c.workspace == workspace, clusters.c.name == name)).first()


def by_id(db: Connection, cluster_id: str) -> Row[Any] | None:
    return db.execute(select(clusters).where(clusters.c.id == cluster_id)).first()


def workspaces_with(db: Connection, name: str) -> list[str]:
    """The workspaces that have a cluster of this name."""
    query = select(clusters.c.workspace).where(clusters.c.name == name)
    return list(db.execute(query.order_by(clusters.c.workspace)).scalars())


def all_rows(db: Connection) -> list[Row[Any]]:
    return list(db.execute(select(clusters).order_by(clusters.c.launched_at.desc().nulls_last(), clusters.c.name)))


def insert_new(db: Connection, values: dict[str, Any], at: float) -> None:
    db.execute(insert(clusters).values(**values, generation=0, created_at=at, status_updated_at=at))
    costs.begin(db, values)
    note(db, values["id"], values["name"], at, values["status"], "created")


def change(
    db: Connection,
    cluster_id: str,
    *,
    at: float,
    seen: int | None = None,
    event: tuple[str, str] | None = None,
    **values: Any,
) -> int:
    """Update the row, its generation and (with `event` = kind and text) its history; returns the new generation.

    With `seen`, raises `Stale` when another writer was faster. Raises `Stale` when the cluster is gone.
    """
    row = by_id(db, cluster_id)
    if row is None or (seen is not None and row.generation != seen):
        raise Stale(cluster_id)
    if "status" in values and values["status"] != row.status:
        values["status_updated_at"] = at
    db.execute(update(clusters).where(clusters.c.id == cluster_id).values(**values, generation=row.generation + 1))
    costs.follow(db, row, values, at)
    if event is not None:
        note(db, cluster_id, row.name, at, *event)
    return row.generation + 1


def note(db: Connection, cluster_id: str, name: str, at: float, kind: str, text: str) -> None:
    """Append to a cluster's history."""
    db.execute(insert(cluster_events).values(cluster_id=cluster_id, cluster_name=name, at=at, kind=kind, text=text))


def last_events(db: Connection) -> dict[str, str]:
    """The last event of every cluster that exists, by its id."""
    newest = select(func.max(cluster_events.c.seq)).where(cluster_events.c.cluster_id.in_(select(clusters.c.id)))
    query = select(cluster_events.c.cluster_id, cluster_events.c.text)
    query = query.where(cluster_events.c.seq.in_(newest.group_by(cluster_events.c.cluster_id)))
    return {row.cluster_id: row.text for row in db.execute(query)}


def saw_events(db: Connection, cluster_id: str, seq: int) -> None:
    """How far the mirror is. No new generation: nothing that anybody decides by has changed."""
    db.execute(update(clusters).where(clusters.c.id == cluster_id, clusters.c.events_seq < seq).values(events_seq=seq))


def remove(db: Connection, cluster_id: str, at: float, text: str) -> None:
    """Forget a cluster that was proven gone, with its mirror of jobs and its secrets. Its history stays."""
    row = by_id(db, cluster_id)
    if row is None:
        return
    note(db, cluster_id, row.name, at, "removed", text)
    costs.end(db, cluster_id, at)
    db.execute(delete(jobs).where(jobs.c.cluster_id == cluster_id))
    db.execute(delete(secrets).where(secrets.c.owner == f"cluster:{cluster_id}"))
    db.execute(delete(clusters).where(clusters.c.id == cluster_id))


def begin_attempt(
    db: Connection, request_id: str, number: int, cluster_id: str, candidate: dict[str, Any], at: float
) -> None:
    """Idempotent: the step that calls it may run again."""
    mine = (attempts.c.request_id == request_id) & (attempts.c.number == number)
    if db.execute(select(attempts.c.state).where(mine)).first() is None:
        db.execute(
            insert(attempts).values(
                request_id=request_id,
                number=number,
                cluster_id=cluster_id,
                candidate=candidate,
                state="placed",
                message="",
                started_at=at,
            )
        )


def end_attempt(
    db: Connection, request_id: str, number: int, state: str, at: float, kind: str | None = None, message: str = ""
) -> None:
    mine = (attempts.c.request_id == request_id) & (attempts.c.number == number)
    db.execute(update(attempts).where(mine).values(state=state, failure_kind=kind, message=message, ended_at=at))


def remember_shortage(db: Connection, cloud: str, region: str, instance_type: str, at: float, reason: str) -> None:
    key = (shortages.c.cloud == cloud) & (shortages.c.region == region) & (shortages.c.instance_type == instance_type)
    until = at + SHORTAGE_S
    db.execute(delete(shortages).where(key))
    db.execute(
        insert(shortages).values(cloud=cloud, region=region, instance_type=instance_type, until=until, reason=reason)
    )


def shortages_now(db: Connection, at: float) -> dict[tuple[str, str, str], str]:
    """What was refused lately, and with which words.

    One that would last longer than they do was noted before the time of day was set back, and is over.
    """
    lasting = shortages.c.until.between(at, at + SHORTAGE_S)
    db_rows: Sequence[Row[Any]] = db.execute(select(shortages).where(lasting)).fetchall()
    return {(row.cloud, row.region, row.instance_type): row.reason for row in db_rows}
