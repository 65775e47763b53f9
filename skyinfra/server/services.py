"""The composition root: everything a server owns, started in order and stopped in the reverse."""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections.abc import Coroutine, Mapping
from typing import Any

from skyinfra.channels import warm
from skyinfra.runtime.package import agent_version
from skyinfra.server import log as server_log
from skyinfra.server.blobs import Blobs
from skyinfra.server.config import ServerConfig
from skyinfra.server.fleet.fleet import Fleet
from skyinfra.server.fleet.ports import Cloud, Connect, Launcher
from skyinfra.server.fleet.watch import Watchers
from skyinfra.server.identity import SYSTEM, Principal, ensure_server_id
from skyinfra.server.leader import Leader
from skyinfra.server.requests.engine import Incoming, RequestEngine
from skyinfra.server.requests.log import RequestLogs
from skyinfra.server.requests.retention import keep_house
from skyinfra.server.requests.ring import ReadRing
from skyinfra.server.settings import Settings
from skyinfra.server.tasks import end_tasks
from skyinfra.server.tokens import Tokens
from skyinfra.server.vault import Vault, private_folder
from skyinfra.server.workspaces import Workspaces
from skyinfra.store import facts, requests
from skyinfra.store.database import Database
from skyinfra.wire import versions

__all__ = ["Services"]

_say = server_log.get("server")
_WAIT_FOR_EVER_S = 10 * 365 * 86400.0


class Services:
    """Build, `start`, serve, `stop`. `stop_asked` is set when somebody wants the server to end."""

    def __init__(self, settings: Settings, launcher: Launcher, connect: Connect, clouds: Mapping[str, Cloud]) -> None:
        self.settings = settings
        home = settings.home
        private_folder(home.root)
        self.started_at = time.time()
        self.server_id = ensure_server_id(home.server_id)
        vault = Vault.open(home.secrets_key)
        self.db = Database(settings.database_url)
        self.workspaces = Workspaces(ServerConfig(home.config), self.db)
        owner = Principal(settings.user_id, settings.user_name)
        self.tokens = Tokens.open(home.token, owner, self.db, self.workspaces)
        self.logs = RequestLogs(home.request_logs)
        self.blobs = Blobs(home.blobs, home.chunks, settings.uploads, lambda: self.db.read(requests.wanted_blobs))
        self.ring = ReadRing()
        self.fleet = Fleet(
            settings, self.db, vault, self.blobs, launcher, connect, clouds, self.server_id, agent_version()
        )
        self.engine = RequestEngine(self.db, vault, self.logs, self.fleet.handlers)
        self.fleet.submit = self._submit_internal
        self.watchers = Watchers(
            self.db, self.fleet.clusters, self.fleet.reach, self.fleet.power, self._submit_internal, settings.minute_s
        )
        self.fleet.clusters.on_change = self.watchers.look
        self.stop_asked = asyncio.Event()
        self.leader = Leader(self.db, self.server_id, home.root, settings.lease_s)
        self._key_check = vault.digest(b"which key")
        self._launcher = launcher
        self._tasks: list[asyncio.Task[None]] = []
        self._warming: asyncio.Task[None] | None = None
        self.acting = False
        """False while another server acts on the same database."""

    async def start(self) -> None:
        """Everything but HTTP. Unfinished requests go on from here, or when the server that acts is gone.

        Raises `RuntimeError` when the database cannot be this server's.
        """
        await self.db.open()
        await self._check_key()
        if await self.leader.take():
            await self._act()
        else:
            self._keep(self._stand_by(), "standing by")

    async def _check_key(self) -> None:
        """What is sealed in a shared database must open here, too."""
        own = self.settings.database_url == f"sqlite:///{self.settings.home.database}"
        known = await self.db.write(lambda db: facts.first(db, "key_check", self._key_check))
        if known == self._key_check:
            return
        path = self.settings.home.secrets_key
        if not own:
            raise RuntimeError(
                f"the secrets in this database are sealed with another key than {path}: copy that file from the server "
                "that made the database"
            )
        _say.error("the key of the secrets is not the one they were sealed with; what is sealed is lost", key=str(path))

    async def _stand_by(self) -> None:
        _say.info("stands by", home=str(self.settings.home.root))
        await self.leader.stand_by()
        await self._act()

    async def _act(self) -> None:
        self._keep(self.leader.keep(), "lease")
        await self._launcher.start()
        self._warming = asyncio.create_task(asyncio.to_thread(warm))
        resumed = await self.engine.resume()
        self._keep(self.watchers.run(), "watchers")
        self._keep(self._settle_left(), "settling")
        self._keep(keep_house(self.settings, self.db, self.logs, self.blobs), "housekeeping")
        self.acting = True
        _say.info("started", home=str(self.settings.home.root), resumed=resumed)

    def _keep(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self._essential)
        self._tasks.append(task)

    async def _settle_left(self) -> None:
        await self.fleet.operator.settle_left()

    def _essential(self, task: asyncio.Task[None]) -> None:
        """A task that should never end did: say so and stop, rather than go on half alive."""
        if not task.cancelled() and task.exception() is not None:
            _say.error("an essential task died; the server stops", task=task.get_name(), exc_info=task.exception())
            self.stop_asked.set()

    async def stop(self) -> None:
        if self._warming is not None:
            await self._warming  # a thread cannot be cancelled, and a loop must not be closed under it
        await end_tasks(self._tasks)
        await self.engine.shutdown(self.settings.shutdown_grace_s)
        await self._launcher.stop(self.settings.shutdown_grace_s)
        await self.fleet.reach.close()
        await self.leader.let_go()
        await self.db.close()
        _say.info("stopped")

    def ask_to_stop(self) -> None:
        self.stop_asked.set()

    def about(self, principal: Principal, commit: str) -> dict[str, Any]:
        return {
            "api": versions.API_VERSION,
            "min_api": versions.MIN_API_VERSION,
            "version": versions.PRODUCT_VERSION,
            "commit": commit,
            "server_id": self.server_id,
            "pid": os.getpid(),
            "started_at": self.started_at,
            "home": str(self.settings.home.root),
            "user": {"id": principal.user_id, "name": principal.user_name, "role": principal.role.value},
        }

    async def doctor(self) -> dict[str, Any]:
        return await self.fleet.doctor(self.engine.lanes.held())

    async def _submit_internal(self, verb: str, cluster: Any, body: dict[str, Any]) -> None:
        """A request of the server's own, awaited to its end."""
        request_id = str(uuid.uuid4())
        full = {"cluster_name": cluster.name, "workspace": cluster.workspace, **body}
        await self.engine.accept(
            Incoming(
                id=request_id,
                key=request_id,
                verb=verb,
                principal=SYSTEM,
                workspace=cluster.workspace,
                cluster_name=cluster.name,
                body=full,
                display=full,
                entrypoint=f"skyinfra ({verb})",
                fingerprint=request_id.encode(),
                internal=True,
            )
        )
        await self.engine.wait(request_id, _WAIT_FOR_EVER_S)
