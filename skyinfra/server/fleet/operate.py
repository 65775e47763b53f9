"""Runs stack operations for a step: a fenced row, a worker, its events in the request's log, the outcome on the row.

An operation found unfinished (the server died) is settled first: its worker's result counts when the fence is right,
otherwise the same operation is run again, and its worker begins with recovery.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import Callable
from typing import Any

from skyinfra.model.spec import ClusterSpec
from skyinfra.runtime.boundary import boundary
from skyinfra.runtime.identity import Identity
from skyinfra.server import log as server_log
from skyinfra.server.fleet.clusters import Clusters
from skyinfra.server.fleet.outcomes import Next, next_move
from skyinfra.server.fleet.ports import Launcher
from skyinfra.server.requests.steps import StepContext
from skyinfra.stacks.operation import OperationEvent, OperationRequest, OperationResult
from skyinfra.store import operations as rows
from skyinfra.store import updates
from skyinfra.store.database import Database

__all__ = ["Operator", "operation_limit"]

_say = server_log.get("operations")

DEADLINE_S = 900.0
#: What one operation needs while it runs: its worker, the engine, a plugin.
OPERATION_BYTES = 160 << 20
#: Before an `up` that was throttled is tried again.
PAUSES_S = (1.0, 3.0, 8.0)


def operation_limit() -> int:
    """How many operations may run at once: by the memory that is free now, and a few per core."""
    free = 4 << 30
    with open("/proc/meminfo") as lines:
        for line in lines:
            if line.startswith("MemAvailable:"):
                free = int(line.split()[1]) * 1024
    return max(1, min(free // 2 // OPERATION_BYTES, 4 * (os.cpu_count() or 1)))


class Operator:
    def __init__(
        self, db: Database, launcher: Launcher, clusters: Clusters, clock: Callable[[], float] = time.time
    ) -> None:
        self._db = db
        self._launcher = launcher
        self._clusters = clusters
        self._clock = clock
        self._room = asyncio.Semaphore(operation_limit())
        self._owner = Identity.own()

    async def run(
        self,
        ctx: StepContext,
        cluster: Any,
        kind: str,
        spec: ClusterSpec | None,
        *,
        consent: tuple[str, ...] = (),
    ) -> OperationResult:
        """One operation, to its result. A cancel reaches the worker, and is raised again when the worker has ended."""
        await self.settle(ctx)
        token = await self._clusters.token(cluster.id)
        return await self._perform(ctx, kind, cluster, spec, consent, {"agent_token": token.reveal()})

    async def preview(self, ctx: StepContext, spec: ClusterSpec, consent: tuple[str, ...] = ()) -> OperationResult:
        """What an `up` of that spec would do, whether its cluster exists or not. Changes nothing, leaves nothing."""
        await self.settle(ctx)
        return await self._perform(ctx, "preview", None, spec, consent, {})

    async def _perform(
        self,
        ctx: StepContext,
        kind: str,
        cluster: Any | None,
        spec: ClusterSpec | None,
        consent: tuple[str, ...],
        secret_values: dict[str, str],
    ) -> OperationResult:
        async with self._room:
            request = await self._begin(ctx, cluster, kind, spec, consent)
            events = _Relay(ctx, request.id, kind)
            events.operation("began")
            boundary("server.operation.before")
            try:
                result = await self._launcher.run(request, secret_values, events)
            except asyncio.CancelledError:
                await self._end(request.id, request.fence, OperationResult("cancelled", request.fence))
                events.operation("cancelled")
                raise
            except Exception as error:
                failure = OperationResult("failed", request.fence, "ours", f"{type(error).__name__}: {error}")
                await self._end(request.id, request.fence, failure)
                events.operation("failed")
                raise
            boundary("server.operation.made")
            await self._end(request.id, request.fence, result)
            boundary("server.operation.recorded")
            events.operation(result.outcome)
            if kind == "preview":
                await self._launcher.forget(request.id)
            return result

    async def up(
        self, ctx: StepContext, cluster: Any, spec: ClusterSpec, consent: tuple[str, ...] = ()
    ) -> OperationResult:
        """One `up`, repeated as its failure says."""
        pauses = iter(PAUSES_S)
        once_more = True
        while True:
            result = await self.run(ctx, cluster, "up", spec, consent=consent)
            move = None if result.outcome == "succeeded" else next_move(result)
            if move is Next.AGAIN:
                pause = next(pauses, None)
                if pause is not None:
                    ctx.say(f"{result.message}; tries again in {pause:g} s")
                    await asyncio.sleep(pause)
                    continue
            elif move is Next.ONCE_MORE and once_more:
                once_more = False
                ctx.say(f"{result.message}; recovers and tries once more")
                continue
            return result

    async def _begin(
        self, ctx: StepContext, cluster: Any | None, kind: str, spec: ClusterSpec | None, consent: tuple[str, ...]
    ) -> OperationRequest:
        """`cluster` is None for a preview."""
        now = self._clock()
        stack = cluster.stack if cluster is not None else spec.stack if spec is not None else ""
        new = rows.NewOperation(
            id=f"{kind}-{secrets.token_hex(6)}",
            request_id=ctx.request_id,
            step=ctx.step,
            cluster_id=cluster.id if cluster is not None else "",
            stack=stack,
            kind=kind,
            owner=f"{self._owner.pid}:{self._owner.start_ticks}",
            boot_id=self._owner.boot_id,
            lease_until=now + DEADLINE_S,
            started_at=now,
        )
        update = self._update(ctx, cluster, new, spec) if kind in updates.RECORDED else None

        def write(db: Any) -> int:
            if update is not None:
                updates.begin(db, update)
            return rows.begin(db, new)

        fence = await self._db.write(write, durable=True)
        return OperationRequest(
            id=new.id,
            kind=kind,  # type: ignore[arg-type]
            stack=stack,
            spec=spec,
            deadline=now + DEADLINE_S,
            fence=fence,
            consent=consent,
        )

    @staticmethod
    def _update(
        ctx: StepContext, cluster: Any, operation: rows.NewOperation, spec: ClusterSpec | None
    ) -> updates.NewUpdate:
        """The operation as a line of the cluster's history."""
        return updates.NewUpdate(
            workspace=cluster.workspace,
            cluster_name=cluster.name,
            cluster_id=cluster.id,
            stack=cluster.stack,
            operation_id=operation.id,
            request_id=ctx.request_id,
            verb=ctx.verb,
            command=ctx.entrypoint,
            user_id=ctx.principal.user_id,
            user_name=ctx.principal.user_name,
            kind=operation.kind,
            spec=spec.to_json() if spec is not None else cluster.spec,
            started_at=operation.started_at,
        )

    async def settle_left(self) -> int:
        """End the operations whose request is over: their server died at the worst moment. Returns how many."""
        left = await self._db.read(rows.running_without_request)
        for row in left:
            result = await self._launcher.settle(row.id)
            interrupted = OperationResult("failed", row.fence, "engine", "interrupted: its server died")
            await self._end(row.id, row.fence, result or interrupted, lost=result is None)
        return len(left)

    async def settle(self, ctx: StepContext) -> None:
        """End what an earlier server left running for this request, so that nobody works on the stack but us."""
        left = await self._db.read(lambda db: [row for row in rows.running(db) if row.request_id == ctx.request_id])
        for row in left:
            result = await self._launcher.settle(row.id)
            if result is None:
                ctx.say(f"Operation {row.id} was interrupted; it is recovered and run again")
            interrupted = OperationResult("failed", row.fence, "engine", "interrupted: its server died")
            await self._end(row.id, row.fence, result or interrupted, lost=result is None)

    async def _end(self, operation_id: str, fence: int, result: OperationResult, *, lost: bool = False) -> None:
        if result.fence != fence:
            _say.warning("a stale result is ignored", operation=operation_id, fence=fence, got=result.fence)
            result = OperationResult("failed", fence, "engine", f"the result was of fence {result.fence}, not {fence}")
        state: str = "lost" if lost else result.outcome
        told: dict[str, Any] = {
            "at": self._clock(),
            "version": result.version,
            "changes": dict(vars(result.changes)),
            "failure_kind": result.kind,
            "message": result.message,
        }
        resources = None if result.resources is None else list(result.resources)

        def write(db: Any) -> None:
            if rows.end(db, operation_id, fence, state, **told):
                updates.end(db, operation_id, state, resources=resources, **told)

        await self._db.write(write)


class _Relay:
    """Turns a worker's events into lines of the request's log."""

    def __init__(self, ctx: StepContext, operation_id: str, kind: str) -> None:
        self._ctx = ctx
        self._id = operation_id
        self._kind = kind

    def operation(self, state: str) -> None:
        self._ctx.emit("operation", id=self._id, operation=self._kind, state=state)

    def __call__(self, event: OperationEvent) -> None:
        if event.kind in ("began", "done", "failed"):
            kind, name = _urn_parts(event.urn)
            self._ctx.emit(
                "resource", urn=event.urn, type=kind, name=name, op=event.op, state=event.kind, text=event.text
            )
        elif event.kind in ("diagnostic", "recover") and event.text:
            self._ctx.say(event.text)


def _urn_parts(urn: str) -> tuple[str, str]:
    """Type and name at the end of ``urn:pulumi:stack::project::parent$type::name``."""
    parts = urn.split("::")
    return (parts[2].rpartition("$")[2], parts[-1]) if len(parts) >= 4 else ("", urn)
