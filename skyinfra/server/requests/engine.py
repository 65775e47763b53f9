"""Carries requests out: durable, step by step, in their lane, cancellable, taken up again after a restart.

Each active request has one driving task that nothing cancels, and inside it the task of its steps, which a cancel or a
shutdown may cancel at any await. Only the driving task makes a request final. The engine knows nothing of clusters:
handlers do.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from skyinfra.model.errors_wire import to_wire
from skyinfra.model.exceptions import RequestAlreadyExistsError, RequestCancelled, with_hint
from skyinfra.runtime.boundary import boundary
from skyinfra.server import log as server_log
from skyinfra.server.identity import Principal
from skyinfra.server.requests.lanes import LaneKey, Lanes, Turn
from skyinfra.server.requests.log import RequestLogs
from skyinfra.server.requests.steps import Handler, Park, Step, StepContext, boundary_base
from skyinfra.server.vault import Vault
from skyinfra.store import requests as rows
from skyinfra.store.database import Database
from skyinfra.store.requests import NewRequest

__all__ = ["Incoming", "RequestEngine"]

_say = server_log.get("requests")


@dataclass(frozen=True)
class Incoming:
    """A request that has been validated and is about to be stored."""

    id: str
    key: str
    verb: str
    principal: Principal
    workspace: str
    cluster_name: str | None
    body: dict[str, Any]
    display: dict[str, Any]
    entrypoint: str
    fingerprint: bytes
    """What must be the same when the key is used again."""
    blobs: tuple[str, ...] = ()
    internal: bool = False


@dataclass
class _Active:
    seq: int
    context: StepContext
    handler: Handler
    cancel_requested: bool = False
    turn: Turn | None = None
    work: asyncio.Task[None] | None = None
    final: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def lane(self) -> LaneKey:
        return (self.context.workspace, self.context.cluster_name)


class RequestEngine:
    def __init__(
        self,
        db: Database,
        vault: Vault,
        logs: RequestLogs,
        handlers: Mapping[str, Handler],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._db = db
        self._vault = vault
        self._logs = logs
        self._handlers = handlers
        self._clock = clock
        self._active: dict[str, _Active] = {}
        self._drivers: set[asyncio.Task[None]] = set()
        self._stopping = False
        self.lanes = Lanes()

    # --- what the routes use -----------------------------------------------------------------------------------

    async def accept(self, new: Incoming) -> str:
        """Store and start a request; the id of the earlier one when its key and body were seen before.

        Raises `RequestAlreadyExistsError` for a known key with another body.
        """
        row = NewRequest(
            id=new.id,
            idempotency_key=new.key,
            body_digest=self._vault.digest(new.fingerprint),
            verb=new.verb,
            workspace=new.workspace,
            user_id=new.principal.user_id,
            user_name=new.principal.user_name,
            cluster_name=new.cluster_name,
            entrypoint=new.entrypoint,
            sealed_body=self._vault.seal(json.dumps(new.body).encode(), _sealing_context(new.id)),
            display=new.display,
            blobs=list(new.blobs),
            created_at=self._clock(),
            internal=new.internal,
        )
        boundary("server.accept.before")
        try:
            request_id, is_new = await self._db.write(lambda db: rows.accept(db, row), durable=True, patient=False)
        except rows.SameKeyOtherBody as error:
            raise with_hint(
                RequestAlreadyExistsError(f"idempotency key {new.key} belongs to another request ({error})"),
                "use a new key for a new request",
            ) from None
        boundary("server.accept.recorded")
        if is_new and not self._stopping:  # stored while stopping: it starts with the next server
            stored = await self._db.read(lambda db: rows.get(db, request_id))
            self._start(stored, new.body)
        return request_id

    async def wait(self, request_id: str, timeout_s: float) -> bool:
        """True when the request is final (or unknown to this engine, which only knows active ones)."""
        active = self._active.get(request_id)
        if active is None:
            return True
        try:
            await asyncio.wait_for(active.final.wait(), timeout_s)
        except TimeoutError:
            return False
        return True

    def is_active(self, request_id: str) -> bool:
        return request_id in self._active and not self._stopping

    async def cancel(self, request_id: str) -> bool:
        """Ask for the end of a request; False when it had ended. Returns before it has ended: `wait` for that."""
        asked = await self._db.write(lambda db: rows.request_cancel(db, request_id), patient=False)
        active = self._active.get(request_id)
        if not asked or active is None:
            return False
        self._interrupt(active)
        return True

    async def resume(self) -> int:
        """Take up what a former server left; call once, before requests are accepted."""
        found = await self._db.read(rows.unfinished)
        for row in found:
            sealed = await self._db.read(lambda db, request_id=row.id: rows.sealed_body(db, request_id))
            try:
                body = json.loads(self._vault.unseal(sealed or b"", _sealing_context(row.id)))
            except RuntimeError as error:  # another key file was put in place: this request cannot go on, others can
                await self._fail_unreadable(row.id, error)
                continue
            self._start(row, body)
        return len(found)

    async def _fail_unreadable(self, request_id: str, error: RuntimeError) -> None:
        wire = to_wire(error)
        await self._db.write(lambda db: rows.finish(db, request_id, "FAILED", error=wire, at=self._clock()))
        self._logs.ensure_end(request_id, "FAILED")

    async def shutdown(self, grace_s: float) -> None:
        """Park everything: it resumes at the next start. Steps get `grace_s` to let go of what they hold."""
        self._stopping = True
        for active in self._active.values():
            if active.work is not None:
                active.work.cancel()
        if self._drivers:
            await asyncio.wait(self._drivers, timeout=grace_s)
        self._logs.wake_all()

    # --- one request ---------------------------------------------------------------------------------------------

    def _start(self, row: Any, body: dict[str, Any]) -> None:
        handler = self._handlers[row.verb]
        context = StepContext(
            request_id=row.id,
            verb=row.verb,
            workspace=row.workspace,
            cluster_name=row.cluster_name or "",
            principal=Principal(row.user_id, row.user_name),
            entrypoint=row.entrypoint,
            created_at=row.created_at,
            body=body,
            display=row.display,
            db=self._db,
            now=self._clock,
            emit=lambda kind, **fields: self._logs.append(row.id, kind, **fields),
        )
        active = _Active(row.seq, context, handler, cancel_requested=row.cancel_requested)
        self._active[row.id] = active
        if handler.lane:
            active.turn = self.lanes.join(active.lane, row.id)
        if handler.clears_lane:
            self._clear_lane(active)
        driver = asyncio.create_task(self._drive(active), name=f"request {row.verb} {row.id}")
        self._drivers.add(driver)
        driver.add_done_callback(self._reap)

    def _reap(self, driver: asyncio.Task[None]) -> None:
        self._drivers.discard(driver)
        if not driver.cancelled() and driver.exception() is not None:
            # Its outcome could not be written (a full disk): the row stays active and the next start takes it up.
            _say.error("a request could not be ended", task=driver.get_name(), exc_info=driver.exception())

    def _clear_lane(self, newcomer: _Active) -> None:
        """Cancel everything that was in the lane before; another request that clears it is waited for instead."""
        for other in list(self._active.values()):
            in_lane = other.handler.lane and not other.handler.clears_lane and other.lane == newcomer.lane
            if in_lane and other.seq < newcomer.seq:
                self._interrupt(other)

    def _interrupt(self, active: _Active) -> None:
        active.cancel_requested = True
        if active.work is not None:
            active.work.cancel()

    async def _drive(self, active: _Active) -> None:
        """The outermost frame of a request: whatever happens, it ends final, or parked when the server stops."""
        context = active.context
        try:
            if active.cancel_requested:
                raise asyncio.CancelledError
            active.work = asyncio.create_task(self._in_turn(active))
            await active.work
        except asyncio.CancelledError:
            if not active.cancel_requested:
                assert self._stopping, "a request's steps were cancelled by nobody"
                await self._park_for_restart(active)
                return
            await self._cancelled(active)
        except Exception as error:  # the request's outermost frame: the error becomes its outcome
            await self._failed(active, error)
        finally:
            self._active.pop(context.request_id, None)
            if active.turn is not None:
                active.turn.leave()  # only now: what cleans up after a cancel needs the lane as well
            active.final.set()
            self._logs.wake(context.request_id)

    async def _in_turn(self, active: _Active) -> None:
        if active.turn is not None:
            holder = active.turn.waits_for
            if holder is not None:
                active.context.say(f"Waiting for request {holder[:8]} on cluster {active.context.cluster_name}")
                await self._set_status(active, "WAITING", f"waits for request {holder}")
            await active.turn.come()
        await self._run_steps(active)

    async def _run_steps(self, active: _Active) -> None:
        request_id = active.context.request_id
        known = (await self._db.read(lambda db: rows.steps_of(db, [request_id]))).get(request_id, [])
        prior = {row.name: row.result for row in known if row.state == "done"}
        step = active.handler.plan(prior)
        await self._db.write(partial(self._open_step, request_id, step, len(prior)))
        result: Any = None
        while step is not None:
            if active.cancel_requested or self._stopping:
                raise asyncio.CancelledError  # a cancel that something in the last step swallowed
            result = await self._perform(active, step, prior)
            done, prior = step, {**prior, step.name: result}
            step = active.handler.plan(prior)
            # One transaction: the result of a step and the beginning of the next, or the request's end.
            await self._db.write(partial(self._advance, request_id, done, result, step, len(prior)))
            active.context.emit("step", name=done.name, state="done")
            boundary(boundary_base(active.handler.verb, done.name) + ".recorded")
        self._logs.ensure_end(request_id, "SUCCEEDED")

    def _open_step(self, request_id: str, step: Step | None, position: int, db: Any) -> None:
        if step is None:
            rows.finish(db, request_id, "SUCCEEDED", at=self._clock())
            return
        rows.set_status(db, request_id, "RUNNING")
        rows.begin_step(db, request_id, step.name, position, self._clock())

    def _advance(
        self, request_id: str, done: Step, result: Any, following: Step | None, position: int, db: Any
    ) -> None:
        rows.end_step(db, request_id, done.name, "done", self._clock(), result)
        if following is None:
            rows.finish(db, request_id, "SUCCEEDED", result=result, at=self._clock())
        else:
            rows.begin_step(db, request_id, following.name, position, self._clock())

    async def _perform(self, active: _Active, step: Step, prior: Mapping[str, Any]) -> Any:
        context, base = active.context, boundary_base(active.handler.verb, step.name)
        context.step = step.name
        context.emit("step", name=step.name, state="began")
        while True:
            boundary(base + ".before")
            try:
                result = await step.run(context, prior)
            except Park as park:
                await self._set_status(active, "WAITING", str(park), park.until)
                await asyncio.sleep(max(0.0, park.until - self._clock()))
                await self._set_status(active, "RUNNING", "")
                continue
            boundary(base + ".made")
            return result

    async def _set_status(self, active: _Active, status: str, message: str, until: float | None = None) -> None:
        await self._db.write(lambda db: rows.set_status(db, active.context.request_id, status, message, until))

    # --- how it ends ---------------------------------------------------------------------------------------------

    async def _failed(self, active: _Active, error: Exception) -> None:
        context = active.context
        _say.warning(
            "a request failed", request=context.request_id, verb=context.verb, step=context.step, exc_info=error
        )
        await self._finish(active, "FAILED", error)

    async def _cancelled(self, active: _Active) -> None:
        request_id = active.context.request_id
        begun = (await self._db.read(lambda db: rows.steps_of(db, [request_id]))).get(request_id, [])
        # One that never began has nothing to clean up, and does not hold the lane that cleaning up needs.
        if begun and active.handler.on_cancel is not None:
            active.context.step = begun[-1].name
            try:
                await active.handler.on_cancel(active.context, {r.name: r.result for r in begun if r.state == "done"})
            except Exception as error:  # it is cancelled all the same; what it left is for `down` and doctor
                _say.error("cleaning up after a cancel failed", request=request_id, exc_info=error)
        who = f"request {request_id} ({active.context.verb}) was cancelled"
        await self._finish(active, "CANCELLED", RequestCancelled(who))

    async def _finish(self, active: _Active, status: str, error: Exception) -> None:
        request_id, step, wire = active.context.request_id, active.context.step, to_wire(error)

        def write(db: Any) -> bool:
            won = rows.finish(db, request_id, status, error=wire, at=self._clock())
            if won and step:
                rows.fail_step(db, request_id, step, self._clock())
            return won

        if await self._db.write(write):
            if step:
                active.context.emit("step", name=step, state="failed")
            self._logs.ensure_end(request_id, status)
        else:  # the last step's result was stored before the cancel arrived: that end counts
            self._logs.ensure_end(request_id, "SUCCEEDED")

    async def _park_for_restart(self, active: _Active) -> None:
        await self._set_status(active, "WAITING", "the server stopped; resumes at its next start")


def _sealing_context(request_id: str) -> str:
    return f"request:{request_id}"
