"""The one door to the database: a writer thread and a pool of readers, both awaited: the loop never waits for a disk.

A unit of work is a plain function that takes a `Connection`; it runs in one transaction. SQLite (WAL) has exactly one
writer; PostgreSQL is served by the same code. Refuses to hold any query: those live in the modules beside this one.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import Connection
from sqlalchemy.exc import OperationalError

__all__ = ["Database", "NoSpace", "Work", "open_engine"]

T = TypeVar("T")
Work = Callable[[Connection], T]

READERS = 4
BUSY_TIMEOUT_S = 10
STATEMENT_TIMEOUT_S = 30
NO_SPACE_AGAIN_S = 1.0
#: SQLite's words, and PostgreSQL's.
NO_SPACE_WORDS = ("database or disk is full", "No space left on device")


class NoSpace(Exception):
    """The disk of the database is full: nothing was written."""


def open_engine(url: str, *, writer: bool) -> Engine:
    """An engine whose transactions begin as the role needs it. For SQLite the folder must exist."""
    if not url.startswith("sqlite"):
        return _open_postgres(url, writer)
    engine = create_engine(
        url,
        pool_size=1 if writer else READERS,
        max_overflow=0,
        connect_args={"timeout": BUSY_TIMEOUT_S, "check_same_thread": False},
    )
    # The driver begins a transaction too late (at the first write, after the reads it depends on): say BEGIN here.
    begin = "BEGIN IMMEDIATE" if writer else "BEGIN"

    @event.listens_for(engine, "connect")
    def on_connect(connection: sqlite3.Connection, _record: Any) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA cache_size=-2048")

    @event.listens_for(engine, "begin")
    def on_begin(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine


def _open_postgres(url: str, writer: bool) -> Engine:
    """Raises `RuntimeError` when the driver is not installed."""
    scheme, _, rest = url.partition("://")
    if scheme in ("postgres", "postgresql"):
        url = f"postgresql+psycopg://{rest}"  # the scheme alone means an older driver
    limits = f"-c statement_timeout={STATEMENT_TIMEOUT_S * 1000} -c idle_in_transaction_session_timeout=60000"
    try:
        return create_engine(
            url,
            pool_size=1 if writer else READERS,
            max_overflow=0,
            pool_pre_ping=True,
            connect_args={"connect_timeout": BUSY_TIMEOUT_S, "options": limits},
        )
    except ModuleNotFoundError as error:
        raise RuntimeError(f"{error.name} is not installed: pip install 'skyinfra[postgres]'") from error


class Database:
    """Open with `open()`, which brings the schema up to date; `close()` waits for the last write."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="db-writer")
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="db-reader")
        self._write_engine: Engine | None = None
        self._read_engine: Engine | None = None
        self.guard: Callable[[Connection], None] | None = None
        """Runs in every write's transaction, before it; what it raises calls the write off."""

    async def open(self) -> None:
        """Raises `RuntimeError` when the database was written by a newer version of this software."""
        await asyncio.get_running_loop().run_in_executor(self._writer, self._open)

    def _open(self) -> None:
        from skyinfra.store.schema import ensure_schema

        self._write_engine = open_engine(self.url, writer=True)
        self._read_engine = open_engine(self.url, writer=False)
        ensure_schema(self._write_engine)

    async def write(self, work: Work[T], *, durable: bool = False, patient: bool = True) -> T:
        """Run `work` in one transaction, after every write asked for before it.

        A full disk makes it wait until there is room again, or raises `NoSpace` when it is not `patient`.

        Every commit survives a killed process. Only a `durable` one is synced, with all before it, and so survives a
        power cut too: for what must be known before something is made (here a sync takes 8 ms, a commit 0.3).
        A caller that is cancelled while it waits does not undo the write: what was asked for happens.
        """
        while True:
            future = asyncio.get_running_loop().run_in_executor(self._writer, self._in_transaction, work, durable)
            try:
                return await asyncio.shield(future)
            except NoSpace:
                if not patient:
                    raise
                await asyncio.sleep(NO_SPACE_AGAIN_S)

    def _in_transaction(self, work: Work[T], durable: bool) -> T:
        assert self._write_engine is not None, "the database is not open"
        try:
            return self._write(self._write_engine, work, durable)
        except OperationalError as error:
            if any(words in str(error.orig) for words in NO_SPACE_WORDS):
                raise NoSpace(str(error.orig)) from error
            raise

    def _write(self, engine: Engine, work: Work[T], durable: bool) -> T:
        with engine.connect() as connection:
            if engine.dialect.name == "sqlite":
                raw: Any = connection.connection.driver_connection
                raw.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
            with connection.begin():
                if self.guard is not None:
                    self.guard(connection)
                return work(connection)

    async def read(self, work: Work[T]) -> T:
        """Run `work` on a reader's connection; it sees everything that `write` has returned from."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._on_reader, work)

    def _on_reader(self, work: Work[T]) -> T:
        assert self._read_engine is not None, "the database is not open"
        with self._read_engine.connect() as connection:
            return work(connection)

    async def close(self) -> None:
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._writer.shutdown(wait=True)
        self._readers.shutdown(wait=True)
        for engine in (self._read_engine, self._write_engine):
            if engine is not None:
                engine.dispose()
