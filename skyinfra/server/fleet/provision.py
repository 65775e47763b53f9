"""Bringing a cluster up, once: the operation, what to do when it fails, and the row that says how it stands.

The fast way: a cluster that is UP, whose spec did not change and whose agents answer, needs no operation at all.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from skyinfra.model.spec import ClusterSpec
from skyinfra.model.states import ClusterStatus
from skyinfra.runtime.protocol import MIN_AGENT_API
from skyinfra.server.fleet.clusters import Clusters, cordoned_slots
from skyinfra.server.fleet.demand import Demand
from skyinfra.server.fleet.down import Undertaker
from skyinfra.server.fleet.failover import shortage_place, shortage_what
from skyinfra.server.fleet.operate import Operator
from skyinfra.server.fleet.outcomes import Next, can_move, error_of, failure, next_move
from skyinfra.server.fleet.ports import AgentError, Unreachable
from skyinfra.server.fleet.power import Power
from skyinfra.server.fleet.reach import Reach, lost_slots
from skyinfra.server.requests.steps import StepContext
from skyinfra.stacks.operation import OperationResult
from skyinfra.store import clusters as rows
from skyinfra.store.database import Database

__all__ = ["Provision", "standing"]

HEALTH_S = 2.0
INIT, UP = ClusterStatus.INIT.name, ClusterStatus.UP.name


class Provision:
    def __init__(
        self,
        db: Database,
        clusters: Clusters,
        operator: Operator,
        reach: Reach,
        undertaker: Undertaker,
        power: Power,
        agent_version: str,
    ) -> None:
        self._db = db
        self._clusters = clusters
        self._operator = operator
        self._reach = reach
        self._undertaker = undertaker
        self._power = power
        self._agent_version = agent_version

    async def settle(self, ctx: StepContext) -> None:
        await self._operator.settle(ctx)

    async def intended(
        self, cluster: Any, *, replace_nodes: bool = False, resized: dict[str, Any] | None = None
    ) -> ClusterSpec:
        """What a launch on this cluster would ask of its stack, as `bring_up` does. Changes nothing."""
        silent = await self.silent(cluster) if _was_running(cluster) else ()
        spec = await self._wanted(cluster, silent, force=False, replace_nodes=replace_nodes)
        return spec if resized is None else _with_every_slot(spec, resized)

    async def bring_up(
        self,
        ctx: StepContext,
        cluster_id: str,
        *,
        attempt: int | None,
        demand: Demand | None = None,
        force: bool = False,
        resized: dict[str, Any] | None = None,
        replace_nodes: bool = False,
    ) -> dict[str, Any]:
        """UP when it returns `{"ok": …}`; `{"failed": …}` when another candidate should be tried.

        `attempt` is None for a cluster that existed: it is never moved. `force`: its agent is started anew. `resized`:
        changes of its node. `replace_nodes` consents to what would delete or replace a machine. Raises the public error
        of any other failure.
        """
        cluster = await self._clusters.by_id(cluster_id)
        assert cluster is not None, "the lane is ours, so the row cannot have gone"
        unchanged = demand is not None and cluster.config_hash == demand.config_hash
        silent = await self.silent(cluster) if _was_running(cluster) else ()
        if silent and await self._power.seen_off(cluster):
            ctx.say(f"Cluster {cluster.name} was stopped from outside; it is started")
            await self._power.off(ctx, cluster, "found stopped")
            cluster = await self._clusters.by_id(cluster_id)
            assert cluster is not None, "a stop keeps the row"
        spec = await self._wanted(cluster, silent, force=force, replace_nodes=replace_nodes)
        if resized is not None:
            spec = _with_every_slot(spec, resized)
        unbroken = _was_running(cluster) and not silent
        if cluster.status == UP and unbroken and spec.to_json() == ClusterSpec.from_json(cluster.spec).to_json():
            # Again, although it is up: the server may have died between the row and the agent's configuration.
            await self._settle_in(ctx, cluster, attempt)
            return {"ok": True, "operation": False, "unchanged": unchanged}
        await self._clusters.change(
            cluster_id, ("provision", "an operation begins"), spec=spec.to_json(), init_kind="launching", status=INIT
        )
        result = await self._operator.up(ctx, cluster, spec, ("*",) if replace_nodes else ())
        if result.outcome == "succeeded":
            await self._record_up(ctx, cluster, result, attempt)
            return {"ok": True, "operation": True, "unchanged": False}
        return await self._failed(ctx, cluster, result, attempt, spec)

    async def _wanted(self, cluster: Any, silent: Sequence[int], *, force: bool, replace_nodes: bool) -> ClusterSpec:
        """What the cluster should be now: today's agent; on, with the next boot; a dead agent's next generation.

        A machine that is gone gets a successor; with `replace_nodes` also one that is LOST or whose agent was given up.
        """
        spec = dataclasses.replace(ClusterSpec.from_json(cluster.spec), agent_version=self._agent_version)
        if spec.power != "stopped":
            given_up = {*cordoned_slots(cluster.cordoned), *lost_slots(cluster)} if replace_nodes else set()
            gone = await self._power.gone(cluster) if silent else set()
            for slot in spec.slots:
                if slot.slot in given_up | gone:
                    spec = spec.with_slot(slot.slot, incarnation=slot.incarnation + 1, agent_generation=0)
                elif _was_running(cluster) and (force or slot.slot in silent):
                    # an agent that does not answer is brought back; its machine and jobs stay
                    spec = spec.with_slot(slot.slot, agent_generation=slot.agent_generation + 1)
            return spec
        autostop = spec.autostop
        if autostop is not None:  # as it was before the stop; its clock begins anew
            autostop = {**autostop, "setting": autostop.get("setting", 0) + 1}
        return dataclasses.replace(spec, power="running", boot=spec.boot + 1, autostop=autostop)

    async def change_spec(
        self,
        ctx: StepContext,
        cluster_id: str,
        spec: ClusterSpec,
        consent: tuple[str, ...],
        before: Mapping[str, Any],
    ) -> None:
        """One `up` to another spec, of a cluster that exists: running or stopped, it stays so. Idempotent.

        `settle_running` comes next.

        `before` is what `standing` said when the request began. Raises the public error of a failure; after a refusal
        for want of consent the cluster is as it was.
        """
        cluster = await self._clusters.by_id(cluster_id)
        assert cluster is not None, "the lane is ours, so the row cannot have gone"
        await self._clusters.change(
            cluster_id, ("spec", "its spec changes"), spec=spec.to_json(), init_kind="launching", status=INIT
        )
        result = await self._operator.up(ctx, cluster, spec, consent)
        if result.outcome != "succeeded":
            await self._failed(ctx, cluster, result, None, spec, before)
        elif spec.power == "stopped":
            await self._clusters.change(
                cluster_id,
                ("stopped", "changed, and still stopped"),
                status=ClusterStatus.STOPPED.name,
                nodes=[dict(node) for node in result.nodes],
                init_kind=None,
            )
        else:
            await self._note_up(ctx, cluster, result)
        await self._clusters.change(cluster_id, config_hash="")  # no task asked for this: the next one's setup runs

    async def settle_running(self, ctx: StepContext, cluster_id: str) -> None:
        """The agents of a cluster that is UP know their place; one that died meanwhile is brought back. Idempotent."""
        cluster = await self._clusters.by_id(cluster_id)
        assert cluster is not None, "the lane is ours, so the row cannot have gone"
        if cluster.status != UP:
            return  # it is stopped: the next start tells its agent
        if await self.answers(cluster):
            await self._settle_in(ctx, cluster, None)
        else:
            await self.bring_up(ctx, cluster_id, attempt=None)

    async def answers(self, cluster: Any) -> bool:
        """Whether every node's agent is there, as `silent` means it."""
        return not await self.silent(cluster)

    async def silent(self, cluster: Any) -> tuple[int, ...]:
        """The slots whose agent is not there, of the boot and generation that the spec asks for, and understood here.

        One that is too old counts as gone: what brings it back installs this server's.
        """
        slots = cluster.spec["slots"]
        there = await asyncio.gather(*(self._one_answers(cluster, slot) for slot in slots))
        return tuple(slot["slot"] for slot, is_there in zip(slots, there, strict=True) if not is_there)

    async def _one_answers(self, cluster: Any, slot: Mapping[str, Any]) -> bool:
        try:
            async with self._reach.node(cluster, slot["slot"]) as agent:
                health = await asyncio.wait_for(agent.health(), HEALTH_S)
        except (Unreachable, AgentError, TimeoutError):
            return False
        if health.api < MIN_AGENT_API:
            return False
        return (health.boot, health.generation) == (cluster.spec["boot"], slot["agent_generation"])

    async def _record_up(self, ctx: StepContext, cluster: Any, result: OperationResult, attempt: int | None) -> None:
        await self._note_up(ctx, cluster, result)
        await self._settle_in(ctx, await self._clusters.by_id(cluster.id), attempt)

    async def _note_up(self, ctx: StepContext, cluster: Any, result: OperationResult) -> None:
        nodes = [dict(node) for node in result.nodes]
        await self._clusters.change(
            cluster.id,
            ("up", f"up with {len(nodes)} node(s)"),
            status=UP,
            nodes=nodes,
            init_kind=None,
            status_reason="",
            ever_up=True,
            cordoned=None,
            node_health={k: v for k, v in (cluster.node_health or {}).items() if v.get("state") != "LOST"} or None,
            launched_at=cluster.launched_at or ctx.now(),
        )

    async def _settle_in(self, ctx: StepContext, cluster: Any, attempt: int | None) -> None:
        """What comes after UP: the agent learns its place, the attempt its end. Idempotent."""
        await self._reach.patiently_all(ctx, cluster, lambda: self._reach.configure_all(cluster))
        if attempt is not None:
            await self._db.write(lambda db: rows.end_attempt(db, ctx.request_id, attempt, "succeeded", ctx.now()))
        ctx.say(f"Cluster {cluster.name} is up")

    async def _failed(
        self,
        ctx: StepContext,
        cluster: Any,
        result: OperationResult,
        attempt: int | None,
        spec: ClusterSpec,
        before: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """A cluster that never was up is taken away again, proven empty; one that was keeps what it has, in INIT."""
        ctx.say(f"Cluster {cluster.name} failed to come up: {result.message}")
        if attempt is not None:
            await self._note_failed_attempt(ctx, cluster, result, attempt)
        if result.kind == "consent":  # nothing was done: the cluster is what it was
            await self._clusters.change(cluster.id, ("refused", result.message), **(before or standing(cluster)))
            raise error_of(result, cluster.name, "up")
        if cluster.ever_up:
            if await self._power.back_to_stopped(cluster, spec, result.message):
                raise error_of(result, cluster.name, "up")
            await self._clusters.change(
                cluster.id, ("up_failed", result.message), init_kind="unhealthy", status_reason=result.message
            )
            raise error_of(result, cluster.name, "up")
        left = await self._undertaker.destroy(ctx, cluster)
        if left is not None:
            await self._clusters.change(cluster.id, ("cleanup_failed", left.message), status_reason=result.message)
            raise error_of(left, cluster.name, "destroy") from error_of(result, cluster.name, "up")
        if attempt is not None and can_move(result):
            return {"failed": failure(result, ctx.now())}
        row = await self._clusters.by_id(cluster.id)
        if row is not None:
            await self._clusters.remove(row, f"never came up: {result.message}")
        raise error_of(result, cluster.name, "up")

    async def note_refused(
        self, ctx: StepContext, cluster_id: str, result: OperationResult, attempt: int
    ) -> dict[str, Any]:
        """As `bring_up` for a place that its cloud refused before anything was made there. Idempotent."""
        cluster = await self._clusters.by_id(cluster_id)
        assert cluster is not None, "the lane is ours, so the row cannot have gone"
        ctx.say(f"Cluster {cluster.name} cannot be made there: {result.message}")
        await self._note_failed_attempt(ctx, cluster, result, attempt)
        return {"failed": failure(result, ctx.now())}

    async def _note_failed_attempt(self, ctx: StepContext, cluster: Any, result: OperationResult, attempt: int) -> None:
        slot = cluster.spec["slots"][0]
        short = next_move(result) is Next.OTHER_PLACE

        def write(db: Any) -> None:
            rows.end_attempt(db, ctx.request_id, attempt, "failed", ctx.now(), result.kind, result.message)
            if short:
                zone = next(iter(cluster.spec.get("zones") or ()), None) if result.kind != "quota" else None
                place = shortage_place(cluster.spec.get("region"), zone)
                what = shortage_what(slot["gpus"], slot["instance_type"])
                rows.remember_shortage(db, cluster.spec["cloud"], place, what, ctx.now(), result.message)

        await self._db.write(write)


def standing(cluster: Any) -> dict[str, Any]:
    """What a change of a cluster's spec puts back when it is refused before anything was done."""
    return {name: getattr(cluster, name) for name in ("spec", "status", "init_kind", "status_reason")}


def _with_every_slot(spec: ClusterSpec, changes: dict[str, Any]) -> ClusterSpec:
    """Nodes of a cluster are alike."""
    for slot in spec.slots:
        spec = spec.with_slot(slot.slot, **changes)
    return spec


def _was_running(cluster: Any) -> bool:
    """Whether the last operation left an agent there; after a stop there is none until the next start is through."""
    return bool(cluster.nodes) and cluster.nodes[0].get("channel") is not None
