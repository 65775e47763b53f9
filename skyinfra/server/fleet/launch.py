"""``launch``: plan → (place#n → provision#n)… → sync → submit.

A new cluster is tried at one candidate after the other; each try is an attempt with a row, and a failed one is
destroyed and proven empty before the next. A cluster that exists keeps its hardware, gets its files again and runs
setup again.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Mapping
from typing import Any

import yaml

from skyinfra.catalog.local import Candidate
from skyinfra.model.exceptions import NoCloudAccessError, ResourcesUnavailableError
from skyinfra.model.names import check_not_reserved, validate_cluster_name
from skyinfra.model.spec import ClusterSpec, Slot, stack_name
from skyinfra.model.states import ClusterStatus
from skyinfra.server.config import ServerConfig
from skyinfra.server.fleet.autostop import Autostop, check_can_stop, policy_of_launch, stops_when_idle
from skyinfra.server.fleet.clusters import Clusters
from skyinfra.server.fleet.demand import Demand, read_demand
from skyinfra.server.fleet.failover import failures_of, told
from skyinfra.server.fleet.outcomes import can_move, error_of
from skyinfra.server.fleet.placement import Placement
from skyinfra.server.fleet.plans import Planner
from skyinfra.server.fleet.provision import Provision
from skyinfra.server.fleet.reach import Reach
from skyinfra.server.fleet.resize import Resize
from skyinfra.server.fleet.start import wait_for_room
from skyinfra.server.fleet.submit import check_fits, submit_job, withdraw_job
from skyinfra.server.requests.steps import Handler, Step, StepContext
from skyinfra.stacks.clouds.registry import can
from skyinfra.stacks.operation import OperationResult
from skyinfra.store import clusters as rows
from skyinfra.store import operations
from skyinfra.store.database import Database

__all__ = ["Launch"]


class Launch:
    def __init__(
        self,
        db: Database,
        clusters: Clusters,
        reach: Reach,
        placement: Placement,
        config: ServerConfig,
        provision: Provision,
        autostop: Autostop,
        resize: Resize,
        planner: Planner,
        server_id: str,
        agent_version: str,
        retry_s: float,
    ) -> None:
        self._db = db
        self._clusters = clusters
        self._reach = reach
        self._placement = placement
        self._config = config
        self._provision = provision
        self._autostop = autostop
        self._resize = resize
        self._retry_s = retry_s
        self._planner = planner
        self._server_id = server_id
        self._agent_version = agent_version

    def handler(self) -> Handler:
        return Handler("launch", self._next, lane=True, long=True, on_cancel=self._on_cancel)

    def _next(self, prior: Mapping[str, Any]) -> Step | None:
        """Pure: the step that follows from what is known."""
        if "plan" not in prior:
            return Step("plan", self._plan)
        if prior["plan"].get("dryrun"):
            return None if "submit" in prior else Step("submit", self._answer_dryrun)
        number = 0
        while f"provision#{number}" in prior and "failed" in prior[f"provision#{number}"]:
            number += 1
        if not prior["plan"]["exists"] and f"place#{number}" not in prior:
            return Step(f"place#{number}", self._place)
        if f"provision#{number}" not in prior:
            return Step(f"provision#{number}", self._make)
        if "sync" not in prior:
            return Step("sync", self._sync)
        return None if "submit" in prior else Step("submit", self._submit)

    # --- steps -----------------------------------------------------------------------------------------------------

    async def _plan(self, ctx: StepContext, prior: Mapping[str, Any]) -> Any:
        validate_cluster_name(ctx.cluster_name)
        check_not_reserved(ctx.cluster_name)
        demand = read_demand(ctx.body["task"])
        policy = policy_of_launch(ctx.body, demand)
        check_can_stop(
            ctx.cluster_name, policy, "is a spot cluster" if all(wish.spot for wish in demand.wishes) else None
        )
        config = await asyncio.to_thread(self._config.of_request, ctx.body, demand.config)
        cluster = await self._clusters.find(ctx.workspace, ctx.cluster_name)
        dryrun = bool(ctx.body.get("dryrun"))
        if cluster is not None:
            if ctx.body.get("resize"):
                await self._resize.check(cluster, demand)
            else:
                check_fits(cluster, demand)
            return {"exists": True, "dryrun": dryrun, "cluster_id": cluster.id, "candidates": []}
        candidates, table = await self._placement.rank(ctx.body["task"], config, ctx.body["optimize_target"])
        if not demand.named_cloud and candidates[0].cloud == "local":
            ctx.say("No other cloud is enabled: using the local cloud (this machine)")
        if stops_when_idle(policy):
            stoppable = [one for one in candidates if can(one.cloud, "stop")]
            check_can_stop(ctx.cluster_name, policy, None if stoppable else f"would be on {candidates[0].cloud}")
            candidates = stoppable
        found = [c.to_json() for c in candidates]
        return {"exists": False, "dryrun": dryrun, "candidates": found, "table": table}

    async def _answer_dryrun(self, ctx: StepContext, prior: Mapping[str, Any]) -> Any:
        for line in prior["plan"].get("table", "").splitlines():
            ctx.say(line)
        return {"job_id": None, "handle": None, "plan": await self._dry_plan(ctx, prior["plan"])}

    async def _dry_plan(self, ctx: StepContext, planned: Mapping[str, Any]) -> dict[str, Any]:
        """What the first candidate, or the cluster that exists, would become."""
        replace_nodes = bool(ctx.body.get("replace_nodes"))
        consent = ("*",) if replace_nodes else ()
        if planned["exists"]:
            cluster = await self._clusters.get(ctx.workspace, ctx.cluster_name)
            resized = None
            if ctx.body.get("resize"):
                resized = await self._resize.size(cluster, read_demand(ctx.body["task"]))
            after = await self._provision.intended(cluster, replace_nodes=replace_nodes, resized=resized)
            return await self._planner.plan(ctx, ClusterSpec.from_json(cluster.spec), after, consent)
        candidate = Candidate.from_json(planned["candidates"][0])
        demand = read_demand(ctx.body["task"])
        config = await asyncio.to_thread(self._config.of_request, ctx.body, demand.config)
        spec, refused = await self._placement.resolve(self._spec(ctx, demand, candidate), demand.machine, config)
        if refused is not None:
            raise error_of(refused, ctx.cluster_name, "preview")
        return await self._planner.plan(ctx, None, spec, consent)

    async def _place(self, ctx: StepContext, prior: Mapping[str, Any]) -> Any:
        """Choose the next candidate and write the row, before anything is made."""
        number = int(ctx.step.partition("#")[2])
        demand = read_demand(ctx.body["task"])
        candidate, round_number = await self._choose(ctx, prior, number, demand)
        config = await asyncio.to_thread(self._config.of_request, ctx.body, demand.config)
        spec, refused = await self._placement.resolve(self._spec(ctx, demand, candidate), demand.machine, config)
        if refused is not None and not can_move(refused):
            raise error_of(refused, ctx.cluster_name, "up")
        cluster = await self._clusters.find(ctx.workspace, ctx.cluster_name)
        if cluster is None:
            cluster_id = await self._clusters.create(self._row(ctx, demand, candidate), spec)
        else:  # this step ran before, or another candidate of this request did: the lane is ours
            cluster_id = cluster.id
            await self._clusters.change(cluster_id, spec=spec.to_json(), resources=_resources(candidate), nodes=[])
        await self._db.write(
            lambda db: rows.begin_attempt(db, ctx.request_id, number, cluster_id, candidate.to_json(), ctx.now())
        )
        placed = {"cluster_id": cluster_id, "candidate": candidate.to_json(), "round": round_number}
        return placed if refused is None else {**placed, "refused": [refused.kind, refused.message]}

    async def _choose(
        self, ctx: StepContext, prior: Mapping[str, Any], number: int, demand: Demand
    ) -> tuple[Candidate, int]:
        """The next place of this round, or with `retry_until_up` the first of the next, and the round's number."""
        if number == 0:
            return Candidate.from_json(prior["plan"]["candidates"][0]), 0
        round_number = prior[f"place#{number - 1}"].get("round", 0)
        failures = failures_of(prior, round_number)
        config = await asyncio.to_thread(self._config.of_request, ctx.body, demand.config)
        task, minimize = ctx.body["task"], ctx.body["optimize_target"]
        try:
            places, _ = await self._placement.rank(task, config, minimize, failures)
        except (ResourcesUnavailableError, NoCloudAccessError):
            await self._exhausted(ctx, prior, number)
            places, _ = await self._placement.rank(task, config, minimize)
            round_number += 1
        ctx.say(f"Trying {places[0].where}")
        return places[0], round_number

    async def _exhausted(self, ctx: StepContext, prior: Mapping[str, Any], number: int) -> None:
        """Every place of a round failed: the end, unless the user wants to wait until one does not."""
        history = failures_of(prior)
        hopeless = next((one for one in history if one.kind in ("credentials", "permission")), None)
        if ctx.body.get("retry_until_up") and len(history) > (hopeless is not None):
            if ctx.memory.get("waited_for") != number:
                ctx.memory["waited_for"] = number
                raise wait_for_room(ctx, ResourcesUnavailableError("no place has room"), self._retry_s)
            return
        cluster = await self._clusters.find(ctx.workspace, ctx.cluster_name)
        if cluster is not None and not cluster.ever_up:
            await self._clusters.remove(cluster, "no place had room")
        if hopeless is not None and len(history) == 1:
            raise error_of(OperationResult("failed", 0, hopeless.kind, hopeless.words), ctx.cluster_name, "up")
        for line in told(ctx.cluster_name, history):
            ctx.say(line)
        tried = f" ({len(history)} were tried)" if len(history) > 1 else ""
        raise ResourcesUnavailableError(
            f"no place had room for cluster '{ctx.cluster_name}'{tried}: {history[-1].words}",
            failover_history=[ResourcesUnavailableError(f"{one.candidate.where}: {one.words}") for one in history],
        )

    async def _make(self, ctx: StepContext, prior: Mapping[str, Any]) -> Any:
        number = int(ctx.step.partition("#")[2])
        placed = prior.get(f"place#{number}") or prior["plan"]
        demand = read_demand(ctx.body["task"])
        if (refused := placed.get("refused")) is not None:
            result = OperationResult("failed", 0, refused[0], refused[1])
            return await self._provision.note_refused(ctx, placed["cluster_id"], result, number)
        if not prior["plan"]["exists"]:
            return await self._provision.bring_up(ctx, placed["cluster_id"], attempt=number, demand=demand)
        resized = None
        if ctx.body.get("resize"):
            resized = await self._resize.prepare(ctx, placed["cluster_id"], demand)
        try:
            return await self._provision.bring_up(
                ctx,
                placed["cluster_id"],
                attempt=None,
                demand=demand,
                resized=resized,
                replace_nodes=bool(ctx.body.get("replace_nodes")),
            )
        except ResourcesUnavailableError as error:
            if ctx.body.get("retry_until_up"):
                raise wait_for_room(ctx, error, self._retry_s) from error
            raise
        finally:
            if resized is not None:  # also when it failed, was refused or called off: what is there takes jobs again
                await self._resize.done(placed["cluster_id"])

    async def _sync(self, ctx: StepContext, prior: Mapping[str, Any]) -> Any:
        cluster = await self._reachable(ctx)
        blobs = ctx.body.get("blobs") or {}
        synced = await self._reach.patiently_all(ctx, cluster, lambda: self._reach.sync_all(cluster, blobs))
        if synced:
            ctx.say(f"Files in place: {', '.join(synced)}")
        return {"synced": synced, "git": await self._reach.check_out(ctx, cluster)}

    async def _submit(self, ctx: StepContext, prior: Mapping[str, Any]) -> Any:
        cluster = await self._reachable(ctx)
        demand = read_demand(ctx.body["task"])
        policy = policy_of_launch(ctx.body, demand)
        if policy is not None or demand.hooks is not None:
            await self._autostop.apply(ctx, cluster, policy, demand.hooks)
            await self._autostop.tell(ctx, cluster.id)
        await self._clusters.change(cluster.id, config_hash=demand.config_hash)
        no_setup = bool(ctx.body.get("no_setup")) or self._is_fast(ctx, prior)
        git = prior["sync"].get("git") or {}
        return await submit_job(ctx, self._reach, self._clusters, cluster, demand, no_setup=no_setup, git=git)

    async def _reachable(self, ctx: StepContext) -> Any:
        """The cluster that was brought up. When this step has parked because its agent did not answer, the agent is
        brought back first: the lane is ours, so nobody else can do it."""
        cluster = await self._clusters.get_up(ctx.workspace, ctx.cluster_name)
        if not self._reach.has_waited(ctx):
            return cluster
        await self._provision.bring_up(ctx, cluster.id, attempt=None)
        return await self._clusters.get_up(ctx.workspace, ctx.cluster_name)

    def _is_fast(self, ctx: StepContext, prior: Mapping[str, Any]) -> bool:
        """`--fast` on a cluster that was up, with nothing changed that provisioning and setup depend on."""
        made = next((result for name, result in prior.items() if name.startswith("provision#")), {})
        return bool(ctx.body.get("fast")) and bool(made.get("unchanged"))

    # --- values ------------------------------------------------------------------------------------------------------

    def _spec(self, ctx: StepContext, demand: Demand, candidate: Candidate) -> ClusterSpec:
        slot = Slot(
            slot=0,
            instance_type=candidate.instance_type,
            cpus=candidate.cpus,
            memory_gb=candidate.memory_gb,
            gpus=candidate.gpus,
            disk_gb=candidate.disk_gb,
            spot=candidate.spot,
        )
        return ClusterSpec(
            server=self._server_id,
            workspace=ctx.workspace,
            user=ctx.principal.user_name,
            name=ctx.cluster_name,
            stack=stack_name(self._server_id, ctx.workspace, ctx.cluster_name),
            cloud=candidate.cloud,
            region=candidate.region,
            zones=(candidate.zone,) if candidate.zone else (),
            slots=tuple(dataclasses.replace(slot, slot=n) for n in range(demand.num_nodes)),
            agent_version=self._agent_version,
            ports=demand.ports,
            labels=demand.labels,
        )

    def _row(self, ctx: StepContext, demand: Demand, candidate: Candidate) -> dict[str, Any]:
        return {
            "user_id": ctx.principal.user_id,
            "user_name": ctx.principal.user_name,
            "resources": _resources(candidate),
            "last_use": ctx.entrypoint or "sky.launch",
            "config_hash": "",
            "creation_yaml": yaml.safe_dump(ctx.display["task"], sort_keys=False),
            "creation_command": ctx.entrypoint,
        }

    async def _on_cancel(self, ctx: StepContext, prior: Mapping[str, Any]) -> None:
        """A row for which nothing was ever made is forgotten; anything else stays, in INIT, for `down`."""
        await self._provision.settle(ctx)
        await withdraw_job(ctx, self._reach, self._clusters, prior)
        cluster = await self._clusters.find(ctx.workspace, ctx.cluster_name)
        if cluster is None or cluster.status != ClusterStatus.INIT.name or cluster.ever_up:
            return
        if _all_proven_gone(prior):
            await self._clusters.remove(cluster, "cancelled while no place had room")
        elif not await self._db.read(lambda db: operations.any_on_stack(db, cluster.stack)):
            await self._clusters.remove(cluster, "cancelled before anything was made")


def _all_proven_gone(prior: Mapping[str, Any]) -> bool:
    """Whether each place that was tried failed, and was therefore destroyed and proven empty."""
    tried = [name.partition("#")[2] for name in prior if name.startswith("place#")]
    return bool(tried) and all("failed" in (prior.get(f"provision#{number}") or {}) for number in tried)


def _resources(candidate: Candidate) -> dict[str, Any]:
    """One node, in the form of a task's `resources` section."""
    config: dict[str, Any] = {
        "infra": candidate.cloud,
        "cpus": f"{candidate.cpus:g}",
        "memory": f"{candidate.memory_gb:g}",
        "disk_size": candidate.disk_gb,
    }
    if candidate.gpus:
        config["accelerators"] = {candidate.gpus[0]: candidate.gpus[1]}
    if candidate.spot:
        config["use_spot"] = True
    return config
