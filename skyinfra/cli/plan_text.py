"""Plans and differences as people read them: one line per resource with what causes it, then sums."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from skyinfra.cli import out

__all__ = ["difference", "plan"]

_SIGNS = {"create": "+", "update": "~", "replace": "±", "delete": "-"}
_COLOURS = {"create": "green", "update": "yellow", "replace": "yellow", "delete": "red"}
_DOINGS = {"create": "to create", "update": "to change", "replace": "to replace", "delete": "to delete"}


def plan(value: Mapping[str, Any]) -> str:
    """What a launch or rollback would do."""
    state = "exists" if value["exists"] else "new"
    changed = [one for one in value["resources"] if one["op"] in _SIGNS]
    lines = [f"Plan for cluster {value['cluster']} ({state}):"]
    lines += [f"  spec {one['property']}: {_arrow(one)}" for one in value["spec"]]
    lines += _resource_lines(changed)
    if len(lines) == 1:
        lines.append("  no changes")
    counts = {op: sum(one["op"] == op for one in changed) for op in _SIGNS}
    sums = [f"{count} {_DOINGS[op]}" for op, count in counts.items() if count]
    sums.append(f"{sum(one['op'] == 'same' for one in value['resources'])} unchanged")
    lines.append(", ".join(sums))
    lines.append(f"Cost: {_price(value['hourly_before'])} -> {_price(value['hourly_after'])}")
    if value["refused"]:
        names = ", ".join(value["refused"])
        lines.append(f"Would be refused: it deletes or replaces {names}. --replace-nodes consents.")
    return "\n".join(lines)


def difference(value: Mapping[str, Any]) -> str:
    """What `diff` found; empty when there is nothing."""
    resources = _resource_lines(value["resources"])
    spec = [f"  {one['property']}: {_arrow(one)}" for one in value["spec"]]
    if not resources and not spec:
        return ""
    head = f"{_named(value['before'])} -> {_named(value['after'])}"
    parts = [head, *(["spec", *spec] if spec else []), *(["resources", *resources] if resources else [])]
    return "\n".join(parts)


def _named(update: Any) -> str:
    return f"@{update}" if isinstance(update, int) else str(update)


def _resource_lines(resources: Sequence[Mapping[str, Any]]) -> list[str]:
    kinds = [one["type"].rpartition(":")[2].lower() for one in resources]
    heads = [f"{kind} {one['name']}" for kind, one in zip(kinds, resources, strict=True)]
    width = max(map(len, heads), default=0)
    lines = []
    for one, head in zip(resources, heads, strict=True):
        sign = out.colour(_SIGNS.get(one["op"], "?"), _COLOURS.get(one["op"], "dim"))
        causes = "; ".join(f"{cause['property']}: {_arrow(cause)}{_forces(cause)}" for cause in one["causes"])
        lines.append(f"  {sign} {head.ljust(width)}  {causes}".rstrip())
    return lines


def _arrow(change: Mapping[str, Any]) -> str:
    return f"{_shown(change['before'])} -> {_shown(change['after'])}"


def _forces(cause: Mapping[str, Any]) -> str:
    return " (replaces it)" if cause.get("replaces") else ""


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "none" if value is None else json.dumps(value)


def _price(value: float | None) -> str:
    return "price unknown" if value is None else f"${value:.2f}/h"
