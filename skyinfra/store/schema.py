"""Keeps the schema current. Alembic is imported only when there is something to migrate: it costs 0.2 s of every start.

`HEAD` must equal the newest revision in ``migrations/versions``; a test holds it to that.
"""

from __future__ import annotations

import os
from pathlib import Path

from sqlalchemy import Engine, inspect, text
from sqlalchemy.engine import Connection

from skyinfra.store.tables import metadata

__all__ = ["HEAD", "current_revision", "ensure_schema", "migrate"]

HEAD = "0003"
MIGRATION_LOCK = 0x736B7969
MIGRATIONS = Path(__file__).with_name("migrations")


def current_revision(connection: Connection) -> str | None:
    """The revision the database is at; None for a fresh one."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def ensure_schema(engine: Engine) -> None:
    """Idempotent. Raises `RuntimeError` for a database that a newer version has written."""
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":  # two servers may come up on one database
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
        at = current_revision(connection)
        if at == HEAD:
            return
        if at is not None and at > HEAD:
            raise RuntimeError(f"the database is at schema {at}, newer than this version understands ({HEAD})")
        if at is None:
            create_fresh(connection)
        else:
            migrate(connection, HEAD)
    if engine.dialect.name == "sqlite" and engine.url.database:
        os.chmod(engine.url.database, 0o600)


def create_fresh(connection: Connection) -> None:
    """All tables at once, marked as being at `HEAD`: the same schema as the migrations make (a test compares them)."""
    metadata.create_all(connection)
    connection.execute(
        text("CREATE TABLE IF NOT EXISTS alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)")
    )
    connection.execute(text("INSERT INTO alembic_version (version_num) VALUES (:head)"), {"head": HEAD})


def migrate(connection: Connection, revision: str) -> None:
    """Bring the database up (or, in a test, down) to `revision` within the caller's transaction."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    if revision == "base" or revision < (current_revision(connection) or ""):
        command.downgrade(config, revision)
    else:
        command.upgrade(config, revision)
