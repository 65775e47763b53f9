"""What a request is made of: a handler plans named steps, each idempotent, each stored before the next begins.

A handler's `plan` is pure: from the results so far it says which step comes next. So a restarted server asks the same
question of the same results and goes on where the other one died. The names of the points at which a fault campaign may
stop the server are all in `STEPS`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from skyinfra.server.identity import Principal
from skyinfra.store.database import Database

__all__ = ["STEPS", "Handler", "Park", "Step", "StepContext", "boundaries", "boundary_base", "in_order"]

Json = Any

#: Every step of every verb, by its boundary's base name. A step that is repeated (`place#1`) shares its name's.
STEPS: dict[str, tuple[str, ...]] = {
    "launch": (
        "request.launch.plan",
        "request.launch.place",
        "request.launch.provision",
        "request.launch.sync",
        "request.launch.submit",
    ),
    "exec": ("request.exec.check", "request.exec.sync", "request.exec.submit"),
    "down": (
        "request.down.find",
        "request.down.drain",
        "request.down.hooks",
        "request.down.destroy",
        "request.down.forget",
    ),
    "stop": ("request.stop.find", "request.stop.drain", "request.stop.hooks", "request.stop.power"),
    "start": ("request.start.find", "request.start.up", "request.start.settle"),
    "autostop": ("request.autostop.set", "request.autostop.tell"),
    "expire": (
        "request.expire.find",
        "request.expire.drain",
        "request.expire.hooks",
        "request.expire.power",
        "request.expire.destroy",
        "request.expire.forget",
    ),
    "cancel": ("request.cancel.cancel",),
    "diff": ("request.diff.compare",),
    "rollback": ("request.rollback.find", "request.rollback.plan", "request.rollback.up", "request.rollback.settle"),
    "adopt": ("request.adopt.row",),
    "revive": ("request.revive.raise", "request.revive.up"),
}


def boundaries() -> list[str]:
    """Every boundary of the request engine, for the fault campaign."""
    return [f"{base}.{when}" for bases in STEPS.values() for base in bases for when in ("before", "made", "recorded")]


def boundary_base(verb: str, step: str) -> str:
    """Raises `KeyError` for a step that `STEPS` does not list: it could not be enumerated."""
    base = f"request.{verb}.{step.partition('#')[0]}"
    if base not in STEPS.get(verb, ()):
        raise KeyError(base)
    return base


class Park(Exception):
    """Raised by a step that cannot go on before `until` (seconds since the epoch): it runs again then."""

    def __init__(self, until: float, why: str) -> None:
        super().__init__(why)
        self.until = until


class Emit(Protocol):
    def __call__(self, kind: str, **fields: Json) -> None: ...


@dataclass
class StepContext:
    """What a step may use. `body` is the request's, with its secrets: it goes to nobody but the agent."""

    request_id: str
    verb: str
    workspace: str
    cluster_name: str
    principal: Principal
    entrypoint: str
    created_at: float
    body: dict[str, Any]
    display: dict[str, Any]
    db: Database
    now: Callable[[], float]
    emit: Emit
    step: str = ""
    memory: dict[str, Any] = field(default_factory=dict)
    """Survives a parked step, not a restart."""

    def say(self, text: str) -> None:
        """A line for the people who watch the request."""
        self.emit("log", text=text)


@dataclass(frozen=True)
class Step:
    name: str
    run: Callable[[StepContext, Mapping[str, Json]], Awaitable[Json]]


Plan = Callable[[Mapping[str, Json]], Step | None]
Cleanup = Callable[[StepContext, Mapping[str, Json]], Awaitable[None]]


@dataclass(frozen=True)
class Handler:
    """How one verb is carried out."""

    verb: str
    plan: Plan
    lane: bool = False
    """One at a time per cluster."""
    clears_lane: bool = False
    """Cancels what was in the lane before it, then runs."""
    long: bool = False
    on_cancel: Cleanup | None = None
    """Runs once when the request was cancelled before its end, before it is called CANCELLED; idempotent."""


def in_order(*steps: Step) -> Plan:
    """The plan of a handler whose steps are always the same."""

    def plan(prior: Mapping[str, Json]) -> Step | None:
        return next((step for step in steps if step.name not in prior), None)

    return plan
