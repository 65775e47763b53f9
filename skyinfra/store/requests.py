"""Queries on requests and their steps. Every function takes a connection and leaves the transaction to its caller.

The database guards each transition: an update names the states it may leave, and says by its row count whether it won.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.engine import Connection, Row

from skyinfra.store.tables import operations, requests, steps

__all__ = ["ACTIVE", "FINAL", "NewRequest", "SameKeyOtherBody"]

ACTIVE = ("PENDING", "WAITING", "RUNNING")
FINAL = ("SUCCEEDED", "FAILED", "CANCELLED")

#: Everything but the sealed body: what listings and the engine carry about.
_VISIBLE = [c for c in requests.c if c.name != "sealed_body"]


class SameKeyOtherBody(Exception):
    """An idempotency key was used again for another request."""


@dataclass(frozen=True)
class NewRequest:
    """What is stored when a request is accepted."""

    id: str
    idempotency_key: str
    body_digest: str
    verb: str
    workspace: str
    user_id: str
    user_name: str
    cluster_name: str | None
    entrypoint: str
    sealed_body: bytes
    display: dict[str, Any]
    blobs: list[str]
    created_at: float
    internal: bool = False


def accept(db: Connection, new: NewRequest) -> tuple[str, bool]:
    """Store a request and return `(id, True)`, or `(id of the earlier one, False)` when its key and body are known.

    Raises `SameKeyOtherBody`.
    """
    known = db.execute(
        select(requests.c.id, requests.c.verb, requests.c.body_digest).where(
            requests.c.idempotency_key == new.idempotency_key
        )
    ).first()
    if known is not None:
        if (known.verb, known.body_digest) != (new.verb, new.body_digest):
            raise SameKeyOtherBody(known.id)
        return known.id, False
    db.execute(
        insert(requests).values(
            **new.__dict__, status="PENDING", cancel_requested=False, status_msg="", parked_until=None, finished_at=None
        )
    )
    return new.id, True


def get(db: Connection, request_id: str) -> Row[Any] | None:
    return db.execute(select(*_VISIBLE).where(requests.c.id == request_id)).first()


def matching(db: Connection, prefix: str, barred: Collection[str] = ()) -> list[str]:
    """Ids that begin with `prefix`, at most two: none, the one, or "several". None of a `barred` workspace."""
    pattern = prefix.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
    query = select(requests.c.id).where(requests.c.id.like(pattern, escape="\\"))
    rows = db.execute(query.where(requests.c.workspace.not_in(barred)).limit(2))
    return [row.id for row in rows]


def listed(
    db: Connection,
    *,
    active_only: bool,
    limit: int | None,
    cluster: str | None = None,
    prefixes: Sequence[str] = (),
    user_id: str | None = None,
    internal_too: bool = False,
    barred: Collection[str] = (),
) -> list[Row[Any]]:
    """Newest first. Of one user, on demand with the server's own: they may wonder what the server does."""
    query = select(*_VISIBLE).order_by(requests.c.seq.desc())
    if active_only:
        query = query.where(requests.c.status.in_(ACTIVE))
    if cluster is not None:
        query = query.where(requests.c.cluster_name == cluster)
    if user_id is not None:
        mine = requests.c.user_id == user_id
        query = query.where(mine | requests.c.internal if internal_too else mine)
    if barred:
        query = query.where(requests.c.workspace.not_in(barred))
    if prefixes:
        ids = [i for prefix in prefixes for i in matching(db, prefix, barred)]
        query = query.where(requests.c.id.in_(ids))
    return list(db.execute(query.limit(limit) if limit else query))


def unfinished(db: Connection) -> list[Row[Any]]:
    """What a starting server takes up again, in the order of arrival."""
    return list(db.execute(select(*_VISIBLE).where(requests.c.status.in_(ACTIVE)).order_by(requests.c.seq)))


def sealed_body(db: Connection, request_id: str) -> bytes | None:
    return db.execute(select(requests.c.sealed_body).where(requests.c.id == request_id)).scalar()


def set_status(
    db: Connection, request_id: str, status: str, message: str = "", parked_until: float | None = None
) -> bool:
    """Move between the states that are not final; False when the request is final already."""
    done = db.execute(
        update(requests)
        .where(requests.c.id == request_id, requests.c.status.in_(ACTIVE))
        .values(status=status, status_msg=message, parked_until=parked_until)
    )
    return done.rowcount == 1


def request_cancel(db: Connection, request_id: str) -> bool:
    """Note that somebody wants it cancelled; False when it is final already."""
    done = db.execute(
        update(requests).where(requests.c.id == request_id, requests.c.status.in_(ACTIVE)).values(cancel_requested=True)
    )
    return done.rowcount == 1


def finish(
    db: Connection, request_id: str, status: str, *, result: Any = None, error: dict[str, Any] | None = None, at: float
) -> bool:
    """Make it final and forget the sealed body. False when it was final before: the first end counts."""
    done = db.execute(
        update(requests)
        .where(requests.c.id == request_id, requests.c.status.in_(ACTIVE))
        .values(
            status=status,
            result=result,
            error=error,
            finished_at=at,
            sealed_body=None,
            parked_until=None,
            status_msg="",
        )
    )
    return done.rowcount == 1


def begin_step(db: Connection, request_id: str, name: str, position: int, at: float) -> None:
    """Note that a step began; again after a restart, it keeps its first time."""
    known = db.execute(
        update(steps).where(steps.c.request_id == request_id, steps.c.name == name).values(state="began")
    )
    if known.rowcount == 0:
        db.execute(
            insert(steps).values(
                request_id=request_id, name=name, position=position, state="began", began_at=at, ended_at=None
            )
        )


def end_step(db: Connection, request_id: str, name: str, state: str, at: float, result: Any = None) -> None:
    db.execute(
        update(steps)
        .where(steps.c.request_id == request_id, steps.c.name == name)
        .values(state=state, ended_at=at, result=result)
    )


def fail_step(db: Connection, request_id: str, name: str, at: float) -> None:
    """A step that had not ended did not succeed."""
    db.execute(
        update(steps)
        .where(steps.c.request_id == request_id, steps.c.name == name, steps.c.state == "began")
        .values(state="failed", ended_at=at)
    )


def steps_of(db: Connection, request_ids: Sequence[str]) -> dict[str, list[Row[Any]]]:
    """Steps by request, in the order in which they began."""
    rows = db.execute(select(steps).where(steps.c.request_id.in_(request_ids)).order_by(steps.c.position))
    found: dict[str, list[Row[Any]]] = {}
    for row in rows:
        found.setdefault(row.request_id, []).append(row)
    return found


def cancelled_since(db: Connection, workspace: str, cluster_name: str, verb: str, at: float) -> bool:
    """Whether a request of that verb on that cluster was called off at or after `at`."""
    query = select(requests.c.id).where(
        requests.c.workspace == workspace,
        requests.c.cluster_name == cluster_name,
        requests.c.verb == verb,
        requests.c.status == "CANCELLED",
        requests.c.finished_at >= at,
    )
    return db.execute(query.limit(1)).first() is not None


def finished_before(db: Connection, at: float) -> list[str]:
    return list(
        db.execute(select(requests.c.id).where(requests.c.status.in_(FINAL), requests.c.finished_at < at)).scalars()
    )


def finished_oldest_first(db: Connection) -> list[str]:
    return list(
        db.execute(select(requests.c.id).where(requests.c.status.in_(FINAL)).order_by(requests.c.seq)).scalars()
    )


def remove(db: Connection, ids: Sequence[str]) -> None:
    """Forget finished requests with their steps and operations."""
    for start in range(0, len(ids), 500):
        part = ids[start : start + 500]
        gone = select(requests.c.id).where(requests.c.id.in_(part), requests.c.status.in_(FINAL))
        db.execute(delete(operations).where(operations.c.request_id.in_(gone)))
        db.execute(delete(steps).where(steps.c.request_id.in_(gone)))
        db.execute(delete(requests).where(requests.c.id.in_(part), requests.c.status.in_(FINAL)))


def wanted_blobs(db: Connection) -> set[str]:
    """Digests that an unfinished request still needs."""
    rows = db.execute(select(requests.c.blobs).where(requests.c.status.in_(ACTIVE))).scalars()
    return {digest for blobs in rows for digest in blobs}


def count_active(db: Connection) -> int:
    return db.execute(select(func.count()).where(requests.c.status.in_(ACTIVE))).scalar_one()
