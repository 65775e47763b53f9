"""Puts the fleet together: every use case of clusters, from the parts they share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from skyinfra.model.states import ClusterStatus
from skyinfra.server.blobs import Blobs
from skyinfra.server.config import ServerConfig
from skyinfra.server.fleet.check import Check
from skyinfra.server.fleet.clouds import Clouds
from skyinfra.server.fleet.clusters import Clusters
from skyinfra.server.fleet.costs import Costs
from skyinfra.server.fleet.doctor import examine
from skyinfra.server.fleet.down import Down, Undertaker
from skyinfra.server.fleet.endpoints import Endpoints
from skyinfra.server.fleet.exec import Exec
from skyinfra.server.fleet.history import History
from skyinfra.server.fleet.jobs import Jobs
from skyinfra.server.fleet.launch import Launch
from skyinfra.server.fleet.logs import Logs
from skyinfra.server.fleet.operate import Operator
from skyinfra.server.fleet.optimize import Optimize
from skyinfra.server.fleet.placement import Placement
from skyinfra.server.fleet.plans import Planner
from skyinfra.server.fleet.ports import Cloud, Connect, Launcher
from skyinfra.server.fleet.provision import Provision
from skyinfra.server.fleet.reach import Reach
from skyinfra.server.fleet.revive import Revive
from skyinfra.server.fleet.rollback import Rollback
from skyinfra.server.identity import Principal
from skyinfra.server.requests.steps import Handler
from skyinfra.server.settings import Settings
from skyinfra.server.vault import Vault
from skyinfra.store import operations
from skyinfra.store.database import Database

__all__ = ["Fleet"]

Read = Callable[[Principal, dict[str, Any]], Awaitable[bytes]]


class Fleet:
    def __init__(
        self,
        settings: Settings,
        db: Database,
        vault: Vault,
        blobs: Blobs,
        launcher: Launcher,
        connect: Connect,
        cloud: Cloud,
        server_id: str,
        agent_version: str,
    ) -> None:
        self._settings = settings
        self._db = db
        self._cloud = cloud
        self.clusters = Clusters(db, vault)
        self.reach = Reach(self.clusters, connect, blobs)
        self.operator = Operator(db, launcher, self.clusters)
        self.jobs = Jobs(db, self.clusters, self.reach)
        self.logs = Logs(self.clusters, self.reach, self.jobs)
        undertaker = Undertaker(db, self.operator, cloud)
        provision = Provision(db, self.clusters, self.operator, self.reach, undertaker, agent_version)
        config, clouds = ServerConfig(settings.home.config), Clouds(settings.home, cloud)
        placement = Placement(db, clouds)
        planner = Planner(self.operator)
        history = History(db, self.clusters, provision, planner)
        launch = Launch(db, self.clusters, self.reach, placement, config, provision, planner, server_id, agent_version)
        optimize = Optimize(clouds, config)
        self.handlers: Mapping[str, Handler] = {
            "launch": launch.handler(),
            "exec": Exec(self.clusters, self.reach).handler(),
            "down": Down(db, self.clusters, self.reach, undertaker).handler(),
            "cancel": self.jobs.cancel_handler(),
            "diff": history.diff_handler(),
            "rollback": Rollback(db, self.clusters, provision, planner).handler(),
            "revive": Revive(self.clusters, self.reach, self.operator, provision).handler(),
        }
        self.reads: Mapping[str, Read] = {
            "status": self._status,
            "queue": self.jobs.queue,
            "job_status": self.jobs.status,
            "optimize": optimize.optimize,
            "list_accelerators": optimize.accelerators,
            "list_accelerator_counts": optimize.accelerator_counts,
            "endpoints": Endpoints(self.clusters).read,
            "cost_report": Costs(db, self.clusters).report,
            "check": Check(cloud, clouds, config).read,
            "history": history.read,
        }

    async def _status(self, principal: Principal, body: dict[str, Any]) -> bytes:
        if body["refresh"] != "NONE":
            await self._refresh()
        whose = None if body["all_users"] else principal.user_id
        return await self.clusters.status(body["cluster_names"], whose, body.get("workspace"), principal.barred)

    async def _refresh(self) -> None:
        """Compare UP clusters with what the cloud shows: one whose machine is not there is not up."""
        seen = await asyncio.to_thread(self._cloud.observe)
        stacks = {machine["cluster"] for machine in seen}
        for row in await self.clusters.all():
            if row.status == ClusterStatus.UP.name and row.stack not in stacks:
                await self.clusters.change(
                    row.id,
                    ("refresh", "its machines are gone"),
                    status=ClusterStatus.INIT.name,
                    init_kind="unhealthy",
                    status_reason="its machines are gone",
                )

    async def doctor(self, lanes: dict[Any, list[str]]) -> dict[str, Any]:
        clusters = await self.clusters.all()
        running = await self._db.read(operations.running)
        entries = await asyncio.to_thread(examine, self._settings.home, clusters, running, lanes)
        return {
            "home": str(self._settings.home.root),
            "clusters": [{"name": row.name, "status": row.status, "stack": row.stack} for row in clusters],
            "entries": entries,
            "orphans": [entry for entry in entries if entry["owner"] is None],
        }
