"""Queries on leases: who holds one, under which fence. No clock is compared here: a holder beats, others count."""

from __future__ import annotations

from typing import Any

from sqlalchemy import insert, select, update
from sqlalchemy.engine import Connection, Row

from skyinfra.store.tables import leases

__all__ = ["Deposed"]

FREE = ""


class Deposed(Exception):
    """Another server holds the lease by now: nothing that this one still wants to write counts."""


def seen(db: Connection, name: str) -> Row[Any] | None:
    return db.execute(select(leases).where(leases.c.name == name)).first()


def take(db: Connection, name: str, holder: str) -> int | None:
    """A new fence, when the lease is free or was `holder`'s before; None while it is another's.

    Raises `sqlalchemy.exc.IntegrityError` when two make the first one at once.
    """
    row = seen(db, name)
    if row is None:
        db.execute(insert(leases).values(name=name, holder=holder, fence=1, beat=0))
        return 1
    return seize(db, row, holder) if row.holder in (FREE, holder) else None


def seize(db: Connection, row: Row[Any], holder: str) -> int | None:
    """Take over a lease that did not beat since `row` was read; None when it did, or somebody was faster."""
    as_read = (leases.c.name == row.name) & (leases.c.fence == row.fence) & (leases.c.beat == row.beat)
    done = db.execute(update(leases).where(as_read).values(holder=holder, fence=row.fence + 1, beat=row.beat + 1))
    return row.fence + 1 if done.rowcount == 1 else None


def beat(db: Connection, name: str, fence: int) -> None:
    """Say that the holder is there. Raises `Deposed`."""
    mine = (leases.c.name == name) & (leases.c.fence == fence)
    if db.execute(update(leases).where(mine).values(beat=leases.c.beat + 1)).rowcount != 1:
        raise Deposed(name)


def free(db: Connection, name: str, fence: int) -> None:
    """Let go, so that another need not wait. Nothing happens when it is another's by now."""
    db.execute(update(leases).where(leases.c.name == name, leases.c.fence == fence).values(holder=FREE))


def require(db: Connection, name: str, fence: int) -> None:
    """Raises `Deposed` unless the lease is held under `fence`, and keeps it so to the end of the transaction."""
    query = select(leases.c.fence).where(leases.c.name == name).with_for_update(read=True)
    if db.execute(query).scalar() != fence:
        raise Deposed(name)
