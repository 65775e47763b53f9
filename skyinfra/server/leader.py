"""Which of the servers on one database acts: the holder of a lease. The others stand by and take over.

The holder beats every `lease_s / 3`. Who stands by takes over when it has seen no beat for `lease_s` of its own
monotonic clock, so no two clocks are compared and a jump of one does no harm. Every write of the holder is fenced: once
another has taken over, it is refused. A holder that cannot beat for `lease_s` ends itself. A new server of the same
state folder, whose lock proves its predecessor dead, need not wait.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from pathlib import Path

from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from skyinfra.runtime.boundary import boundary
from skyinfra.server import log as server_log
from skyinfra.store import leases as rows
from skyinfra.store.database import Database, NoSpace
from skyinfra.store.leases import Deposed

__all__ = ["Leader"]

LEASE = "leader"
_say = server_log.get("leader")


class Leader:
    def __init__(
        self, db: Database, server_id: str, home: Path, lease_s: float, ticks: Callable[[], float] = time.monotonic
    ) -> None:
        self._db = db
        self._me = f"{server_id} on {socket.gethostname()}:{home}"
        self._lease_s = lease_s
        self._ticks = ticks
        self._fence: int | None = None
        self.other = ""
        """Who acts instead of us."""

    @property
    def acts(self) -> bool:
        return self._fence is not None

    async def take(self) -> bool:
        """Hold the lease if it is free, or was of this state folder's last server."""
        boundary("server.lease.before")
        try:
            fence = await self._db.write(lambda db: rows.take(db, LEASE, self._me), durable=True)
        except IntegrityError:  # another server made the first one this moment
            fence = None
        if fence is None:
            row = await self._db.read(lambda db: rows.seen(db, LEASE))
            self.other = row.holder if row is not None else ""
        return self._held(fence)

    def _held(self, fence: int | None) -> bool:
        if fence is None:
            return False
        self._fence = fence
        self._db.guard = lambda db: rows.require(db, LEASE, fence)
        boundary("server.lease.recorded")
        return True

    async def stand_by(self) -> None:
        """Returns when this server holds the lease."""
        quiet_since, last = self._ticks(), None
        while not self.acts:
            try:
                row = await self._db.read(lambda db: rows.seen(db, LEASE))
                if row is None or row.holder in (rows.FREE, self._me):
                    await self.take()
                    continue
                self.other = row.holder
                if (row.fence, row.beat) != last:
                    quiet_since, last = self._ticks(), (row.fence, row.beat)
                elif self._ticks() - quiet_since > self._lease_s:
                    _say.warning("the acting server is silent; this one takes over", silent=row.holder)
                    self._held(await self._db.write(lambda db, row=row: rows.seize(db, row, self._me), durable=True))
                    continue
            except SQLAlchemyError as error:
                _say.warning("the database does not answer", error=str(error).splitlines()[0])
            await asyncio.sleep(self._lease_s / 10)

    async def keep(self) -> None:
        """Beat until cancelled. Raises `Deposed` when the lease is lost, or could not be kept for its whole time."""
        fence = self._fence
        assert fence is not None, "only a holder keeps the lease"
        kept_at = self._ticks()
        while True:
            await asyncio.sleep(self._lease_s / 3)
            began = self._ticks()
            try:
                async with asyncio.timeout(max(0.01, self._lease_s - (began - kept_at))):
                    await self._db.write(lambda db: rows.beat(db, LEASE, fence), patient=False)
                kept_at = began
            except NoSpace:
                kept_at = began  # others cannot write either, so nobody takes over: go on answering what only reads
            except (SQLAlchemyError, TimeoutError) as error:
                _say.warning("the lease could not be kept", error=str(error).splitlines()[:1])
                if self._ticks() - kept_at >= self._lease_s:
                    raise Deposed("the database did not answer for too long") from error

    async def let_go(self) -> None:
        """At the end of a server that stops: the next one need not wait."""
        fence, self._fence = self._fence, None
        if fence is None:
            return
        self._db.guard = None
        try:
            await self._db.write(lambda db: rows.free(db, LEASE, fence), patient=False)
        except (SQLAlchemyError, NoSpace) as error:
            _say.warning("the lease was not let go; another server waits for it", error=str(error).splitlines()[0])
