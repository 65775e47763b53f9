"""Queries on tokens and on the workspaces that users prefer. Only digests of tokens are known here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, insert, select, update
from sqlalchemy.engine import Connection, Row

from skyinfra.store.tables import preferences, tokens

__all__ = ["NewToken"]


@dataclass(frozen=True)
class NewToken:
    id: str
    name: str
    digest: str
    user_id: str
    user_name: str
    role: str
    created_by: str
    created_at: float
    expires_at: float | None


def add(db: Connection, new: NewToken) -> None:
    db.execute(insert(tokens).values(**new.__dict__, revoked_at=None, last_used_at=None))


def by_digest(db: Connection, digest: str) -> Row[Any] | None:
    return db.execute(select(tokens).where(tokens.c.digest == digest)).first()


def by_id(db: Connection, token_id: str) -> Row[Any] | None:
    return db.execute(select(tokens).where(tokens.c.id == token_id)).first()


def listed(db: Connection, user_id: str | None) -> list[Row[Any]]:
    """Newest first; of one user, or of everybody."""
    query = select(tokens).order_by(tokens.c.created_at.desc(), tokens.c.id)
    return list(db.execute(query if user_id is None else query.where(tokens.c.user_id == user_id)))


def revoke(db: Connection, token_id: str, at: float) -> bool:
    """False when it was revoked before."""
    done = db.execute(
        update(tokens).where(tokens.c.id == token_id, tokens.c.revoked_at.is_(None)).values(revoked_at=at)
    )
    return done.rowcount == 1


def used(db: Connection, token_id: str, at: float) -> None:
    db.execute(update(tokens).where(tokens.c.id == token_id).values(last_used_at=at))


def preferred_workspace(db: Connection, user_id: str) -> str | None:
    return db.execute(select(preferences.c.workspace).where(preferences.c.user_id == user_id)).scalar()


def prefer_workspace(db: Connection, user_id: str, workspace: str | None) -> None:
    db.execute(delete(preferences).where(preferences.c.user_id == user_id))
    if workspace is not None:
        db.execute(insert(preferences).values(user_id=user_id, workspace=workspace))
