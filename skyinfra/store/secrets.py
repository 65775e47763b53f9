"""Queries on sealed values. This module never sees one in clear: sealing is the server's."""

from __future__ import annotations

from sqlalchemy import delete, insert, select
from sqlalchemy.engine import Connection

from skyinfra.store.tables import secrets


def put(db: Connection, owner: str, name: str, sealed: bytes, at: float) -> None:
    drop(db, owner, name)
    db.execute(insert(secrets).values(owner=owner, name=name, sealed=sealed, created_at=at))


def get(db: Connection, owner: str, name: str) -> bytes | None:
    return db.execute(select(secrets.c.sealed).where(secrets.c.owner == owner, secrets.c.name == name)).scalar()


def drop(db: Connection, owner: str, name: str) -> None:
    db.execute(delete(secrets).where(secrets.c.owner == owner, secrets.c.name == name))
