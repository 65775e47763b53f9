"""Queries on operations: a row per stack operation, fenced: a worker from before a crash overwrites nothing newer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, insert, select, update
from sqlalchemy.engine import Connection, Row

from skyinfra.store.tables import operations, requests

__all__ = ["NewOperation"]


@dataclass(frozen=True)
class NewOperation:
    id: str
    request_id: str
    step: str
    cluster_id: str
    stack: str
    kind: str
    owner: str
    boot_id: str
    lease_until: float
    started_at: float


def begin(db: Connection, new: NewOperation) -> int:
    """Store a running operation and return its fence, higher than any before on its stack."""
    last = db.execute(select(func.max(operations.c.fence)).where(operations.c.stack == new.stack)).scalar()
    fence = (last or 0) + 1
    db.execute(insert(operations).values(**new.__dict__, state="running", fence=fence, changes={}, message=""))
    return fence


def end(
    db: Connection,
    operation_id: str,
    fence: int,
    state: str,
    *,
    at: float,
    version: int | None = None,
    changes: dict[str, int] | None = None,
    failure_kind: str | None = None,
    message: str = "",
) -> bool:
    """Record the outcome of a running operation; False when the fence is stale or the row was ended before."""
    done = db.execute(
        update(operations)
        .where(operations.c.id == operation_id, operations.c.fence == fence, operations.c.state == "running")
        .values(
            state=state,
            finished_at=at,
            version=version,
            changes=changes or {},
            failure_kind=failure_kind,
            message=message,
        )
    )
    return done.rowcount == 1


def running(db: Connection) -> list[Row[Any]]:
    """Operations without an outcome: after a restart, those whose worker must be settled first."""
    return list(db.execute(select(operations).where(operations.c.state == "running").order_by(operations.c.started_at)))


def running_without_request(db: Connection) -> list[Row[Any]]:
    """Running operations whose request is final, or forgotten: nobody else will look after them."""
    active = select(requests.c.id).where(requests.c.status.in_(("PENDING", "WAITING", "RUNNING")))
    query = select(operations).where(operations.c.state == "running", operations.c.request_id.not_in(active))
    return list(db.execute(query))


def of_step(db: Connection, request_id: str, step: str) -> list[Row[Any]]:
    query = select(operations).where(operations.c.request_id == request_id, operations.c.step == step)
    return list(db.execute(query.order_by(operations.c.fence)))


def of_requests(db: Connection, request_ids: Sequence[str]) -> dict[str, list[Row[Any]]]:
    rows = db.execute(
        select(operations).where(operations.c.request_id.in_(request_ids)).order_by(operations.c.started_at)
    )
    found: dict[str, list[Row[Any]]] = {}
    for row in rows:
        found.setdefault(row.request_id, []).append(row)
    return found


def any_on_stack(db: Connection, stack: str) -> bool:
    """Whether anything but previews was ever asked of the engine for this stack, so that something may exist."""
    query = select(operations.c.id).where(operations.c.stack == stack, operations.c.kind != "preview")
    return db.execute(query.limit(1)).first() is not None


def all_ids(db: Connection) -> set[str]:
    return set(db.execute(select(operations.c.id)).scalars())


def extend_lease(db: Connection, operation_id: str, until: float) -> None:
    db.execute(update(operations).where(operations.c.id == operation_id).values(lease_until=until))
