"""Queries on updates: what happened to each cluster's stack, numbered by the cluster's name, kept beyond its life.

An update is an operation that changed its stack, or tried to. It is written when the operation begins, in the same
transaction as the operation's row, and taken back when it turns out that nothing was to be changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.engine import Connection, Row

from skyinfra.store.tables import clusters, updates

__all__ = ["RECORDED", "NewUpdate"]

RECORDED = frozenset({"up", "refresh", "destroy"})
"""The kinds of operations that change a stack."""

_CHANGES = ("create", "update", "replace", "delete")


@dataclass(frozen=True)
class NewUpdate:
    workspace: str
    cluster_name: str
    cluster_id: str
    stack: str
    operation_id: str
    request_id: str
    verb: str
    command: str
    user_id: str
    user_name: str
    kind: str
    spec: dict[str, Any]
    started_at: float


def _of(workspace: str, name: str) -> Any:
    return (updates.c.workspace == workspace) & (updates.c.cluster_name == name)


def begin(db: Connection, new: NewUpdate) -> int:
    """Store a running update; its number. The caller holds the cluster's lane, so no two get the same."""
    number = last_number(db, new.workspace, new.cluster_name) + 1
    db.execute(insert(updates).values(**new.__dict__, number=number, state="running", changes={}, message=""))
    return number


def end(
    db: Connection,
    operation_id: str,
    state: str,
    *,
    at: float,
    version: int | None,
    changes: dict[str, int],
    failure_kind: str | None,
    message: str,
    resources: list[dict[str, Any]] | None,
) -> None:
    """Record how it ended, once; an update that succeeded without changing anything is no update."""
    mine = (updates.c.operation_id == operation_id) & (updates.c.state == "running")
    if state == "succeeded" and not any(changes.get(name) for name in _CHANGES):
        db.execute(delete(updates).where(mine))
        return
    db.execute(
        update(updates)
        .where(mine)
        .values(
            state=state,
            finished_at=at,
            version=version,
            changes=changes,
            failure_kind=failure_kind,
            message=message,
            resources=resources,
        )
    )


def listed(db: Connection, workspace: str, name: str, limit: int | None = None) -> list[Row[Any]]:
    """A cluster's updates, newest first, without specs and resources."""
    left_out = ("seq", "spec", "resources")
    columns = [column for column in updates.c if column.name not in left_out]
    query = select(*columns).where(_of(workspace, name)).order_by(updates.c.number.desc())
    return list(db.execute(query if limit is None else query.limit(limit)))


def get(db: Connection, workspace: str, name: str, number: int) -> Row[Any] | None:
    return db.execute(select(updates).where(_of(workspace, name), updates.c.number == number)).first()


def last_number(db: Connection, workspace: str, name: str) -> int:
    """0 when the cluster has no history."""
    return db.execute(select(func.max(updates.c.number)).where(_of(workspace, name))).scalar() or 0


def last_known(db: Connection, workspace: str, name: str) -> Row[Any] | None:
    """The newest update after which it is known what the stack held."""
    query = select(updates).where(_of(workspace, name), updates.c.finished_at.is_not(None))
    found = db.execute(query.order_by(updates.c.number.desc()).limit(20))
    return next((row for row in found if row.resources is not None), None)


def forget_before(db: Connection, at: float) -> int:
    """Forget what ended before `at` on clusters that are gone; the history of a living one is kept whole."""
    living = select(clusters.c.id)
    done = db.execute(delete(updates).where(updates.c.finished_at < at, updates.c.cluster_id.not_in(living)))
    return done.rowcount
