"""Connections to the hosts of pools, and questions to many of them at once within a bounded time.

A host that cannot be reached is unreachable, never absent: `Seen.problem` says why. At most `KEY_EXCHANGES` connections
are being set up at once, because each costs both ends some ten milliseconds of CPU. Connections are kept while the
`Hosts` lives: a worker opens its own and ends with it, the server closes after each survey.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from skyinfra.channels.ssh_pools import target_of
from skyinfra.channels.ssh_target import SshFailed
from skyinfra.model.home import Home
from skyinfra.model.ssh_pools import Pools
from skyinfra.stacks.clouds.failures import CloudError
from skyinfra.stacks.clouds.ssh import ids
from skyinfra.stacks.clouds.ssh.facts import load_pools
from skyinfra.stacks.clouds.ssh.intents import Place
from skyinfra.stacks.remote.program import ask

if TYPE_CHECKING:
    from skyinfra.channels.ssh_connection import SshConnection

__all__ = ["LOOK_S", "Hosts", "Seen"]

KEY_EXCHANGES = 8
#: For a look at a host that may be off.
LOOK_S = 5.0
#: And for the turn of one, where many are off.
ROOM_S = 10.0
ASK_S = 60.0
PARALLEL = 32

_room = threading.BoundedSemaphore(KEY_EXCHANGES)  # of this process
Cancelled = Callable[[], bool]
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Seen:
    """What a look at a host found: `facts`, and who holds it; or why it could not be looked at."""

    place: Place
    facts: dict[str, Any] | None = None
    lease: dict[str, Any] | None = None
    agent: str = "dead"
    problem: str = ""


def _never() -> bool:
    return False


def _silent(_: str) -> None:
    pass


class Hosts:
    """`server`: who asks, so that its leases are renewed. For any number of threads."""

    def __init__(self, home: Home, server: str = "") -> None:
        self._home = home
        self._server = server
        self._guard = threading.Lock()  # guards the two below
        self._connections: dict[Place, SshConnection] = {}
        self._opening: dict[Place, threading.Lock] = {}

    def pools(self) -> Pools:
        """As the file says now. Raises `CloudError` (user)."""
        return load_pools(self._home)

    def places(self, pool_names: Iterable[str] = ()) -> list[Place]:
        """The hosts of these pools, or of all. A pool that the file does not know has none."""
        pools, wanted = self.pools(), set(pool_names)
        return [
            Place(name, host.name)
            for name, pool in pools.items()
            if not wanted or name in wanted
            for host in pool.hosts
        ]

    def ask(
        self,
        place: Place,
        request: dict[str, Any],
        *,
        connect_s: float = LOOK_S,
        cancelled: Cancelled = _never,
        tell: Tell = _silent,
    ) -> dict[str, Any]:
        """A question to one host (`remote.node.ops`). A kept connection that turns out broken is opened again, once.

        Raises `CloudError`: transient when it cannot be reached, user when what the file says is wrong.
        """
        full = {"leases": ids.LEASES, "server": self._server, **request}
        connection, fresh = self._connection(place, connect_s, cancelled, tell)
        try:
            return ask(connection, place.host, full, ASK_S)
        except CloudError as exc:
            self._drop(place, connection)
            if fresh or exc.kind != "transient":
                raise
        connection, _ = self._connection(place, connect_s, cancelled, tell)
        return ask(connection, place.host, full, ASK_S)

    def look(self, places: Iterable[Place]) -> list[Seen]:
        """All of them in parallel, in their order."""
        todo = list(places)
        if not todo:
            return []
        with ThreadPoolExecutor(min(PARALLEL, len(todo)), thread_name_prefix="ssh-look") as pool:
            return list(pool.map(self._look, todo))

    def _look(self, place: Place) -> Seen:
        try:
            return Seen(place, **self.ask(place, {"op": "look"}))
        except CloudError as exc:
            return Seen(place, problem=exc.words)

    def close(self) -> None:
        with self._guard:
            connections, self._connections = self._connections, {}
        for connection in connections.values():
            connection.close()

    # below: connections ---------------------------------------------------------------------------------------------

    def _connection(
        self, place: Place, within_s: float, cancelled: Cancelled, tell: Tell
    ) -> tuple[SshConnection, bool]:
        with self._guard:
            turn = self._opening.setdefault(place, threading.Lock())
        with turn:
            with self._guard:
                kept = self._connections.get(place)
            if kept is not None:
                return kept, False
            opened = self._open(place, within_s, cancelled, tell)
            with self._guard:
                self._connections[place] = opened
            return opened, True

    def _open(self, place: Place, within_s: float, cancelled: Cancelled, tell: Tell) -> SshConnection:
        pool = self.pools().get(place.pool)
        host = pool.host(place.host) if pool else None
        if host is None:
            words = f"host {place.host} is not in pool {place.pool} of the ssh node pools any more; put it back"
            raise CloudError("user", words, place.pool)
        from skyinfra.channels.ssh_connection import connect  # here: only who meets a machine needs paramiko

        what = f"{place.host} of pool {place.pool} cannot be reached"
        if not _room.acquire(timeout=within_s + ROOM_S):
            raise CloudError("transient", f"{what}: too many others answer slowly", place.pool)
        try:
            return connect(target_of(self._home, host), time.monotonic() + within_s, cancelled, tell)
        except SshFailed as exc:
            raise CloudError("user" if exc.fatal else "transient", f"{what}: {exc.reason}", place.pool) from exc
        finally:
            _room.release()

    def _drop(self, place: Place, connection: SshConnection) -> None:
        with self._guard:
            if self._connections.get(place) is connection:
                del self._connections[place]
        connection.close()
