"""The schema: fresh tables and migrations make the same thing, and a newer database is refused."""

import pytest
import sqlalchemy as sa

from skyinfra.store import clusters, schema
from skyinfra.store.database import open_engine
from skyinfra.store.tables import metadata

MIGRATIONS = sorted((schema.MIGRATIONS / "versions").glob("[0-9]*.py"))


def described(connection):
    inspector = sa.inspect(connection)
    return {
        table: (
            [(c["name"], str(c["type"]), c["nullable"]) for c in inspector.get_columns(table)],
            sorted((i["name"], tuple(i["column_names"])) for i in inspector.get_indexes(table)),
            sorted(tuple(u["column_names"]) for u in inspector.get_unique_constraints(table)),
            inspector.get_pk_constraint(table)["constrained_columns"],
        )
        for table in inspector.get_table_names()
        if table != "alembic_version"
    }


def engine_at(path):
    return open_engine(f"sqlite:///{path}", writer=True)


def test_head_is_the_newest_migration():
    assert MIGRATIONS[-1].name.startswith(schema.HEAD + "_")


def test_migrations_and_fresh_tables_make_the_same_schema(tmp_path):
    fresh, migrated = engine_at(tmp_path / "fresh.db"), engine_at(tmp_path / "migrated.db")
    schema.ensure_schema(fresh)
    with migrated.begin() as connection:
        schema.migrate(connection, schema.HEAD)
    with fresh.begin() as one, migrated.begin() as other:
        assert schema.current_revision(one) == schema.current_revision(other) == schema.HEAD
        assert described(one) == described(other)
        assert set(described(one)) == set(metadata.tables)


def test_a_migration_can_be_taken_back_and_made_again(tmp_path):
    engine = engine_at(tmp_path / "x.db")
    with engine.begin() as connection:
        schema.migrate(connection, schema.HEAD)
    with engine.begin() as connection:
        schema.migrate(connection, "base")
        assert described(connection) == {}
    schema.ensure_schema(engine)
    with engine.begin() as connection:
        assert schema.current_revision(connection) in (schema.HEAD, None)


def test_a_database_of_a_newer_version_is_refused(tmp_path):
    engine = engine_at(tmp_path / "x.db")
    schema.ensure_schema(engine)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(RuntimeError, match="newer"):
        schema.ensure_schema(engine)


def test_the_database_file_is_private(tmp_path):
    schema.ensure_schema(engine_at(tmp_path / "x.db"))
    assert (tmp_path / "x.db").stat().st_mode & 0o077 == 0


def test_a_shortage_is_over_after_its_time_and_when_the_time_of_day_was_set_back(tmp_path):
    engine = engine_at(tmp_path / "x.db")
    schema.ensure_schema(engine)
    with engine.begin() as connection:
        clusters.remember_shortage(connection, "local", "here", "big", 10_000.0, "no room")
        seen = [bool(clusters.shortages_now(connection, 10_000.0 + jump)) for jump in (0, 599, 601, 3600, -3600)]
    assert seen == [True, True, False, False, False]
