"""The operation folder: what the server asks of a worker, and what the worker answers.

``operations/<id>/`` holds ``request.json`` (written by the launcher), ``worker.json`` (who works on it),
``events.jsonl`` (appended by the worker) and ``result.json`` (written last, to a temporary name, fsynced, renamed).
Secrets are never in it: the worker reads them as one JSON object from its standard input, after the request's line.

No Pulumi here: the server imports this.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from skyinfra.model.spec import ClusterSpec

__all__ = ["Changes", "FailureKind", "Kind", "OperationEvent", "OperationRequest", "OperationResult", "Outcome"]

Kind = Literal["preview", "up", "refresh", "destroy", "recover"]
Outcome = Literal["succeeded", "failed", "cancelled"]
FailureKind = Literal[
    "capacity",
    "quota",
    "spot_price",
    "credentials",
    "permission",
    "user",
    "throttled",
    "transient",
    "engine",
    "consent",
    "leftovers",
    "ours",
]


@dataclass(frozen=True)
class Changes:
    """How many resources an update created, changed, replaced, deleted and left alone."""

    create: int = 0
    update: int = 0
    replace: int = 0
    delete: int = 0
    same: int = 0


@dataclass(frozen=True)
class OperationRequest:
    """One mutating engine call, with its preview, stack init and recovery."""

    id: str
    kind: Kind
    stack: str
    spec: ClusterSpec | None
    """None only for `destroy` and `recover` of a stack whose spec is lost."""
    expect_version: int | None = None
    """Refuse (failure kind `engine`) when the stack's latest update is another one; None = do not check."""
    deadline: float | None = None
    """Seconds since the epoch; past it the operation is interrupted."""
    fence: int = 0
    """A result with another fence than the row's is ignored."""
    consent: tuple[str, ...] = ()
    """URNs (or ``*``) of machines and disks that may be deleted or replaced."""

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> OperationRequest:
        spec = value.get("spec")
        return cls(
            **{
                **value,
                "spec": ClusterSpec.from_json(spec) if spec else None,
                "consent": tuple(value.get("consent") or ()),
            }
        )


@dataclass(frozen=True)
class OperationEvent:
    """One line of ``events.jsonl``.

    `kind`: ``start`` | ``planned`` | ``began`` | ``done`` | ``failed`` | ``diagnostic`` | ``recover`` | ``end``.
    `op`: the engine's word for the step (create, update, replace, delete, same, read, refresh).
    """

    seq: int
    at: float
    kind: str
    urn: str = ""
    op: str = ""
    text: str = ""


@dataclass(frozen=True)
class OperationResult:
    """What came of it. `nodes`: `[{slot, id, internal_ip, external_ip, channel, incarnation}]`, head first."""

    outcome: Outcome
    fence: int = 0
    kind: FailureKind | None = None
    message: str = ""
    detail: str = ""
    version: int | None = None
    changes: Changes = field(default_factory=Changes)
    nodes: tuple[dict[str, Any], ...] = ()
    leftovers: tuple[str, ...] = ()
    plan: tuple[dict[str, Any], ...] = ()
    """Of a preview: what would become of each resource, see `plan.plan_of`."""
    resources: tuple[dict[str, Any], ...] | None = None
    """What the stack holds afterwards: `[{urn, type, name, id, inputs}]`; None when the operation cannot tell."""

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> OperationResult:
        return cls(
            **{
                **value,
                "changes": Changes(**value.get("changes", {})),
                "nodes": tuple(value.get("nodes") or ()),
                "leftovers": tuple(value.get("leftovers") or ()),
                "plan": tuple(value.get("plan") or ()),
                "resources": None if value.get("resources") is None else tuple(value["resources"]),
            }
        )
