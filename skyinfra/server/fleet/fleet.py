"""Puts the fleet together: every use case of clusters, from the parts they share."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from skyinfra.model.states import ClusterStatus
from skyinfra.server.blobs import Blobs
from skyinfra.server.config import ServerConfig
from skyinfra.server.fleet.autostop import Autostop
from skyinfra.server.fleet.check import Check
from skyinfra.server.fleet.clouds import Clouds, observe_clouds
from skyinfra.server.fleet.clusters import Clusters
from skyinfra.server.fleet.costs import Costs
from skyinfra.server.fleet.doctor import examine
from skyinfra.server.fleet.down import Down, Undertaker
from skyinfra.server.fleet.ending import Ending
from skyinfra.server.fleet.endpoints import Endpoints
from skyinfra.server.fleet.exec import Exec
from skyinfra.server.fleet.history import History
from skyinfra.server.fleet.jobs import Jobs
from skyinfra.server.fleet.launch import Launch
from skyinfra.server.fleet.logs import Logs
from skyinfra.server.fleet.operate import Operator
from skyinfra.server.fleet.optimize import Optimize
from skyinfra.server.fleet.orphans import Orphans
from skyinfra.server.fleet.placement import Placement
from skyinfra.server.fleet.plans import Planner
from skyinfra.server.fleet.ports import Cloud, Connect, Launcher
from skyinfra.server.fleet.power import Power
from skyinfra.server.fleet.provision import Provision
from skyinfra.server.fleet.reach import Reach
from skyinfra.server.fleet.resize import Resize
from skyinfra.server.fleet.revive import Revive
from skyinfra.server.fleet.rollback import Rollback
from skyinfra.server.fleet.ssh_pools import SshPools
from skyinfra.server.fleet.stack_access import eject, stack_env
from skyinfra.server.fleet.start import Start
from skyinfra.server.fleet.stop import Stop
from skyinfra.server.identity import Principal
from skyinfra.server.requests.steps import Handler
from skyinfra.server.settings import Settings
from skyinfra.server.vault import Vault
from skyinfra.stacks.project import shell_lines
from skyinfra.store import operations
from skyinfra.store.database import Database

__all__ = ["Fleet"]

Submit = Callable[[str, Any, dict[str, Any]], Awaitable[None]]
"""`(verb, cluster row, body)`: an internal request, awaited to its end. Set by who owns the request engine."""
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
        clouds: Mapping[str, Cloud],
        server_id: str,
        agent_version: str,
    ) -> None:
        self._settings = settings
        self._db = db
        self.submit: Submit = _nobody
        self._clouds = Clouds(settings.home, clouds)
        self.clusters = Clusters(db, vault)
        self.reach = Reach(self.clusters, connect, blobs, settings.minute_s)
        self.operator = Operator(db, launcher, self.clusters)
        self.jobs = Jobs(db, self.clusters, self.reach)
        self.logs = Logs(self.clusters, self.reach, self.jobs)
        self.power = Power(db, self.clusters, self.operator, self.reach, self._clouds)
        config = ServerConfig(settings.home.config)
        optimize = Optimize(self._clouds, config)
        self._agent_version = agent_version
        self._planner = Planner(self.operator)
        provision = self._build_provision()
        history = History(db, self.clusters, provision, self._planner)
        rollback = Rollback(db, self.clusters, provision, self._planner)
        orphans = Orphans(settings.home, self._clouds, self.clusters, config, server_id, agent_version)
        self.handlers = {
            **self._build_handlers(config, Placement(db, self._clouds), provision, server_id),
            "diff": history.diff_handler(),
            "rollback": rollback.handler(),
            "adopt": orphans.adopt_handler(),
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
            "check": Check(self._clouds, config).read,
            "history": history.read,
            "stack_env": self._stack_env,
            "eject": self._eject,
            "orphans": orphans.read,
            **SshPools(settings.home, self.clusters, self._clouds).reads(),
        }

    def _build_provision(self) -> Provision:
        self._undertaker = Undertaker(self._db, self.operator, self._clouds)
        return Provision(
            self._db, self.clusters, self.operator, self.reach, self._undertaker, self.power, self._agent_version
        )

    def _build_handlers(
        self, config: ServerConfig, placement: Placement, provision: Provision, server_id: str
    ) -> Mapping[str, Handler]:
        db, clusters, reach, power, retry_s = self._db, self.clusters, self.reach, self.power, self._settings.retry_s
        undertaker, ending = self._undertaker, Ending(self.reach)
        autostop, resize = Autostop(clusters, reach), Resize(clusters, ending, self._clouds)
        launch = Launch(
            db,
            clusters,
            reach,
            placement,
            config,
            provision,
            autostop,
            resize,
            self._planner,
            server_id=server_id,
            agent_version=self._agent_version,
            retry_s=retry_s,
        )
        down = Down(db, clusters, reach, undertaker, ending)
        stop = Stop(db, clusters, ending, self.operator, power, down)
        return {
            "launch": launch.handler(),
            "exec": Exec(clusters, reach).handler(),
            "down": down.handler(),
            "stop": stop.stop_handler(),
            "start": Start(clusters, provision, autostop, retry_s).handler(),
            "autostop": autostop.handler(),
            "cancel": self.jobs.cancel_handler(),
            "revive": Revive(clusters, reach, self.operator, provision, power).handler(),
            "expire": stop.expire_handler(),
        }

    async def _status(self, principal: Principal, body: dict[str, Any]) -> bytes:
        if body["refresh"] != "NONE":
            await self._refresh(everything=body["refresh"] == "FORCE")
        whose = None if body["all_users"] else principal.user_id
        return await self.clusters.status(body["cluster_names"], whose, body.get("workspace"), principal.barred)

    async def _stack_env(self, principal: Principal, body: dict[str, Any]) -> bytes:
        cluster = await self.clusters.get(body["workspace"], body["cluster_name"])
        env = await asyncio.to_thread(stack_env, self._settings.home, cluster.stack)
        return json.dumps({"env": env, "lines": shell_lines(env)}).encode()

    async def _eject(self, principal: Principal, body: dict[str, Any]) -> bytes:
        cluster = await self.clusters.get(body["workspace"], body["cluster_name"])
        return json.dumps({"files": await asyncio.to_thread(eject, self._settings.home, cluster)}).encode()

    async def _refresh(self, everything: bool) -> None:
        """Compare UP clusters with what the cloud shows: stopped, or not there at all. AUTO looks only at those that
        may change by themselves (spot, autostop)."""
        rows = [row for row in await self.clusters.all() if row.status == ClusterStatus.UP.name]
        rows = [row for row in rows if everything or _changes_by_itself(row)]
        seen, failed = await asyncio.to_thread(observe_clouds, self._clouds, rows)
        for row in rows:
            if (why := failed.get(row.spec["cloud"])) is not None:  # no answer is not "gone"
                await self.clusters.change(row.id, ("refresh", why), status_reason=f"not refreshed: {why}")
                continue
            machines = seen.get(row.stack)
            if not machines:
                why = "its machines are gone"
                await self.clusters.change(
                    row.id,
                    ("refresh", why),
                    status=ClusterStatus.INIT.name,
                    init_kind="unhealthy",
                    status_reason=why,
                )
            elif all(machine.get("state") == "stopped" for machine in machines):
                await self.submit("revive", row, {})  # in the cluster's lane, where its declaration is changed

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


async def _nobody(verb: str, cluster: Any, body: dict[str, Any]) -> None:
    raise RuntimeError(f"{verb}: there is no request engine yet")


def _changes_by_itself(row: Any) -> bool:
    return row.autostop > 0 or any(slot["spot"] for slot in row.spec["slots"])
