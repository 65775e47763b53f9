"""What a preview would do, resource by resource, and what a stack holds, as plain values. Pure.

The engine tells a replacement in several steps (delete, create, and the replacement itself); here it is one line.
Outputs are left out: they hold addresses, and whoever compares two updates asks what was declared.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from skyinfra.stacks.backend import State
from skyinfra.stacks.consent import unasked
from skyinfra.stacks.events import Cause, Planned
from skyinfra.stacks.provider.calls import UNKNOWN

__all__ = ["LATER", "plan_of", "resources_of"]

LATER = "(known once it is made)"
"""What stands for a value that the preview cannot know, and for nothing else."""

_REPLACING = frozenset({"replace", "create-replacement", "delete-replaced", "discard-replaced", "import-replacement"})
_WORDS = {"import": "create", "discard": "delete", "refresh": "same", "read": "same"}
_BOOKKEEPING = ("pulumi:pulumi:Stack", "pulumi:providers:")


def plan_of(steps: Iterable[Planned], consent: Iterable[str] = ()) -> list[dict[str, Any]]:
    """`[{urn, type, name, op, causes: [{property, before, after, replaces}], refused}]`, in the engine's order.

    `op`: create, update, replace, delete or same. `refused`: an `up` with this consent would not do it.
    """
    steps = list(steps)
    refused = set(unasked(steps, consent))
    found: dict[str, tuple[Planned, str, dict[str, Cause]]] = {}
    for step in steps:
        if step.type.startswith(_BOOKKEEPING):
            continue
        _, op, causes = found.get(step.urn, (step, "same", {}))
        if step.op in _REPLACING:
            op = "replace"
        elif op != "replace":
            op = _WORDS.get(step.op, step.op)
        found[step.urn] = (step, op, {**causes, **{cause.property: cause for cause in step.causes}})
    return [
        {
            "urn": urn,
            "type": step.type,
            "name": name_of(urn),
            "op": op,
            "causes": [_cause(cause) for cause in causes.values()] if op in ("update", "replace") else [],
            "refused": urn in refused,
        }
        for urn, (step, op, causes) in found.items()
    ]


def _cause(cause: Cause) -> dict[str, Any]:
    value = asdict(cause)
    return {**value, "after": LATER} if cause.after == UNKNOWN else value


def resources_of(state: State) -> list[dict[str, Any]]:
    """The state's resources as declared: `[{urn, type, name, id, inputs}]`."""
    return [
        {
            "urn": resource["urn"],
            "type": resource["type"],
            "name": name_of(resource["urn"]),
            "id": resource.get("id") or "",
            "inputs": resource.get("inputs") or {},
        }
        for resource in state.resources
        if not resource["type"].startswith(_BOOKKEEPING) and not resource.get("delete")
    ]


def name_of(urn: str) -> str:
    return urn.rsplit("::", 1)[-1]
