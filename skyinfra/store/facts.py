"""Facts about the database that every server on it must agree on."""

from __future__ import annotations

from sqlalchemy import insert, select
from sqlalchemy.engine import Connection

from skyinfra.store.tables import server_facts

__all__ = ["first"]


def first(db: Connection, name: str, value: str) -> str:
    """What the first server said, which is `value` when it is this one."""
    known = db.execute(select(server_facts.c.value).where(server_facts.c.name == name)).scalar()
    if known is None:
        db.execute(insert(server_facts).values(name=name, value=value))
        return value
    return known
