"""What carries this server's tag, or has a stack here, and belongs to no cluster; and how one is taken in again.

A lost database, a cluster that was purged, a state folder put back from a backup: the machines go on, and cost. `adopt`
makes a row of one, in INIT, so that everything else (`status`, `launch -c`, `down`) can deal with it. What carries
another server's tag is never looked at twice.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from skyinfra.catalog.prices import CatalogOffers
from skyinfra.model.exceptions import ClusterDoesNotExist, with_hint
from skyinfra.model.home import Home
from skyinfra.model.resources import Resources
from skyinfra.model.spec import ClusterSpec, Slot
from skyinfra.server.config import ServerConfig
from skyinfra.server.fleet.clouds import Clouds
from skyinfra.server.fleet.clusters import Clusters, handle_of
from skyinfra.server.identity import Principal
from skyinfra.server.requests.steps import Handler, Step, StepContext, in_order
from skyinfra.server.settings import DEFAULT_WORKSPACE
from skyinfra.stacks.backend import StateUnreadable, open_backend
from skyinfra.stacks.clouds.failures import CloudError
from skyinfra.stacks.clouds.registry import is_own
from skyinfra.stacks.settings import load_settings

__all__ = ["Orphans"]

Orphan = dict[str, Any]


class Orphans:
    def __init__(
        self, home: Home, clouds: Clouds, clusters: Clusters, config: ServerConfig, server_id: str, agent_version: str
    ) -> None:
        self._home = home
        self._clouds = clouds
        self._clusters = clusters
        self._config = config
        self._server = server_id
        self._agent_version = agent_version

    async def read(self, principal: Principal, body: dict[str, Any]) -> bytes:
        """``{orphans: [...], unseen: {cloud: why}}``; `unseen` are clouds that did not answer, so nothing is known."""
        orphans, unseen = await self._find()
        return json.dumps({"orphans": orphans, "unseen": unseen}).encode()

    def adopt_handler(self) -> Handler:
        return Handler("adopt", in_order(Step("row", self._adopt)), lane=True)

    async def _adopt(self, ctx: StepContext, prior: Mapping[str, Any]) -> Any:
        """Idempotent: what has a row by now is that row."""
        stack = ctx.body["stack"]
        for row in await self._clusters.all():
            if row.stack == stack:
                return handle_of(row).to_json()
        orphans, unseen = await self._find()
        orphan = next((one for one in orphans if one["stack"] == stack), None)
        if orphan is None:
            why = "".join(f"; {cloud} did not answer: {said}" for cloud, said in unseen.items())
            error = ClusterDoesNotExist(f"nothing without an owner is called '{stack}'{why}")
            raise with_hint(error, "`skyinfra reap --dry-run` lists what there is")
        known = await asyncio.to_thread(self._declared, stack)
        spec = self._spec(ctx, orphan) if known is None else _as_adopted(ctx, known)
        values = {
            "user_id": ctx.principal.user_id,
            "user_name": ctx.principal.user_name,
            "resources": _resources(spec),
            "last_use": ctx.entrypoint,
            "config_hash": "",
            "creation_yaml": "",
            "creation_command": ctx.entrypoint,
            "init_kind": "unhealthy",
            "status_reason": "found without an owner",
        }
        cluster_id = await self._clusters.create(values, spec)
        ctx.say(f"Adopted {stack} as cluster {ctx.cluster_name}")
        return handle_of(await self._clusters.by_id(cluster_id)).to_json()

    def _declared(self, stack: str) -> ClusterSpec | None:
        """What the stack's last update declared."""
        known = open_backend(load_settings(self._home)).last_spec(stack)
        return None if known is None else ClusterSpec.from_json(known)

    def _spec(self, ctx: StepContext, orphan: Orphan) -> ClusterSpec:
        """As far as tags tell it: enough to remove it."""
        found = [
            Slot(
                slot=machine["slot"],
                incarnation=machine["incarnation"],
                instance_type=machine["instance_type"] or orphan["cloud"],
                spot=machine["spot"],
            )
            for machine in orphan["machines"]
        ]
        return ClusterSpec(
            server=self._server,
            workspace=ctx.workspace,
            user=ctx.principal.user_name,
            name=ctx.cluster_name,
            stack=orphan["stack"],
            cloud=orphan["cloud"],
            region=orphan["region"],
            slots=tuple(found) or (Slot(slot=0),),
            agent_version=self._agent_version,
        )

    async def _find(self) -> tuple[list[Orphan], dict[str, str]]:
        rows = await self._clusters.all()
        return await asyncio.to_thread(self._look, {row.stack for row in rows}, {row.name for row in rows})

    def _look(self, owned: set[str], names: set[str]) -> tuple[list[Orphan], dict[str, str]]:
        found: dict[str, Orphan] = {}
        unseen: dict[str, str] = {}
        for name in self._clouds.enabled(self._config.current()):
            try:
                machines = self._clouds[name].observe()
            except (CloudError, ValueError) as error:
                unseen[name] = error.words if isinstance(error, CloudError) else str(error)
                continue
            for machine in machines:
                if machine["cluster"] not in owned and self._is_ours(name, machine) and machine["state"] != "deleting":
                    orphan = found.setdefault(machine["cluster"], _orphan(name, machine.get("region"), machine))
                    orphan["machines"].append(_shown(name, machine))
        for stack, cloud in self._stacks(owned | set(found)):
            found[stack] = _orphan(cloud, None, {"cluster": stack, "workspace": DEFAULT_WORKSPACE})
        for one in found.values():
            known = self._declared(one["stack"])
            one["name"] = _free_name(one["stack"], known.name if known is not None else None, names)
        return list(found.values()), unseen

    def _is_ours(self, cloud: str, machine: Mapping[str, Any]) -> bool:
        """A local machine lies in this state folder; anything else says whose it is."""
        return machine.get("server") == self._server or (cloud == "local" and not machine.get("server"))

    def _stacks(self, known: set[str]) -> Iterable[tuple[str, str]]:
        """Stacks of nobody, and the cloud of each. Of a backend that others may use, too, only those that say so."""
        settings = load_settings(self._home)
        backend, alone = open_backend(settings), settings.folder == self._home.backend
        for stack in backend.stacks():
            if stack in known:
                continue
            try:
                state = backend.load(stack)
            except StateUnreadable:
                state = None
            resources = state.resources if state is not None else []
            servers = {server for one in resources if (server := _server_of(one)) is not None}
            if servers == {self._server} or (alone and not servers):
                yield stack, _cloud_of(resources)


def _orphan(cloud: str, region: str | None, machine: Mapping[str, Any]) -> Orphan:
    return {
        "stack": machine["cluster"],
        "cloud": cloud,
        "region": region,
        "workspace": machine.get("workspace") or DEFAULT_WORKSPACE,
        "machines": [],
    }


def _shown(cloud: str, machine: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: machine[name] for name in ("id", "slot", "incarnation", "state", "spot")}
    kind, region = machine.get("instance_type"), machine.get("region")
    hourly: float | None = 0.0 if is_own(cloud) else None
    if hourly is None and kind is not None and region is not None:
        try:
            hourly = CatalogOffers().price(
                Resources(infra=f"{cloud}/{region}", instance_type=kind, use_spot=kept["spot"])
            )
        except ValueError:
            pass  # a machine type that the catalog does not know has no known price
    return {**kept, "instance_type": kind, "since": machine.get("launched_at"), "hourly": hourly}


def _as_adopted(ctx: StepContext, known: ClusterSpec) -> ClusterSpec:
    """Its agents start anew with the next `up`, as they have a token that nobody knows any more."""
    slots = tuple(dataclasses.replace(slot, agent_generation=slot.agent_generation + 1) for slot in known.slots)
    return dataclasses.replace(known, workspace=ctx.workspace, name=ctx.cluster_name, slots=slots)


def _resources(spec: ClusterSpec) -> dict[str, Any]:
    """One node, as `status` shows it."""
    slot = spec.slots[0]
    shown = {"infra": spec.cloud, "cpus": f"{slot.cpus:g}", "memory": f"{slot.memory_gb:g}", "disk_size": slot.disk_gb}
    return {**shown, **({"accelerators": {slot.gpus[0]: slot.gpus[1]}} if slot.gpus else {})}


def _free_name(stack: str, declared: str | None, taken: set[str]) -> str:
    """The cluster's own name; where that is lost or taken, what the stack's still tells of it, or the stack's."""
    readable = re.sub(r"-[0-9a-f]{6}$", "", stack)
    return next((name for name in (declared, readable) if name and name not in taken), stack)


def _server_of(resource: Mapping[str, Any]) -> str | None:
    inputs = resource.get("inputs") or {}
    return inputs.get("server") or (inputs.get("tags") or {}).get("skyinfra-server")


def _cloud_of(resources: Iterable[Mapping[str, Any]]) -> str:
    for resource in resources:
        package, _, rest = resource["type"].partition(":")
        if package == "skyinfra" and rest.endswith(":Machine"):
            return rest.partition(":")[0]
        if package not in ("skyinfra", "pulumi"):
            return package
    return "local"
