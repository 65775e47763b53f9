"""The engine's event stream -> our events, and what is summed up on the way. Pure: JSON in, values out.

Refuses to interpret the engine's printed text: changes come from its summary event, failures from its diagnostics.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from skyinfra.stacks.operation import Changes

__all__ = ["Cause", "Planned", "Summary", "Told", "translate"]

_MARKUP = re.compile(r"<\{%.*?%\}>")
#: What a step of a resource waits for, in a user's words; shown behind its live line.
_WAITS_FOR = {
    ("skyinfra:index:Agent", "create"): "waits for its first answer",
    ("skyinfra:index:Agent", "update"): "waits for the new one's answer",
    ("skyinfra:index:Agent", "delete"): "waits for it to end",
    ("skyinfra:local:Machine", "delete"): "waits for its processes to end",
}
_QUIET_TYPES = ("pulumi:pulumi:Stack", "pulumi:providers:")


@dataclass(frozen=True)
class Told:
    """One event for ``events.jsonl``."""

    kind: str
    urn: str = ""
    op: str = ""
    text: str = ""


@dataclass(frozen=True)
class Cause:
    """An input whose change is why a resource is updated, or, with `replaces`, made anew."""

    property: str
    before: Any
    after: Any
    replaces: bool = False


@dataclass(frozen=True)
class Planned:
    """A step the engine takes, or in a preview would take."""

    urn: str
    op: str
    type: str
    causes: tuple[Cause, ...] = ()


@dataclass
class Summary:
    """What one engine call said."""

    changes: Changes = field(default_factory=Changes)
    steps: list[Planned] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def has_changes(self) -> bool:
        changes = self.changes
        return bool(changes.create or changes.update or changes.replace or changes.delete or self._odd_steps)

    @property
    def _odd_steps(self) -> list[Planned]:
        """Steps the summary does not count as changes but that touch the world."""
        return [step for step in self.steps if step.op not in ("same", "read", "refresh")]


def translate(event: dict[str, Any], summary: Summary, preview: bool) -> Told | None:
    """Add the event to the summary; what to tell of it, or None."""
    if "resourcePreEvent" in event:
        return _step(event["resourcePreEvent"]["metadata"], summary, "planned" if preview else "began")
    if "resOutputsEvent" in event:
        metadata = event["resOutputsEvent"]["metadata"]
        return None if preview or _quiet(metadata) else Told("done", metadata["urn"], metadata["op"])
    if "resOpFailedEvent" in event:
        metadata = event["resOpFailedEvent"]["metadata"]
        return Told("failed", metadata["urn"], metadata["op"])
    if "diagnosticEvent" in event:
        return _diagnostic(event["diagnosticEvent"], summary)
    if "summaryEvent" in event:
        summary.changes = _changes(event["summaryEvent"].get("resourceChanges") or {})
    return None


def _quiet(metadata: dict[str, Any]) -> bool:
    return metadata["op"] == "same" or metadata["type"].startswith(_QUIET_TYPES)


def _step(metadata: dict[str, Any], summary: Summary, kind: str) -> Told | None:
    summary.steps.append(Planned(metadata["urn"], metadata["op"], metadata["type"], _causes(metadata)))
    if _quiet(metadata):
        return None
    waits_for = _WAITS_FOR.get((metadata["type"], metadata["op"]), "") if kind == "began" else ""
    return Told(kind, metadata["urn"], metadata["op"], waits_for)


def _causes(metadata: dict[str, Any]) -> tuple[Cause, ...]:
    """What the provider's diff named; the engine gives a replacement's reasons as `keys`."""
    replaces: list[str] = metadata.get("keys") or []
    diffs: list[str] = metadata.get("diffs") or []
    names = dict.fromkeys([*diffs, *replaces])
    before = (metadata.get("old") or {}).get("inputs") or {}
    after = (metadata.get("new") or {}).get("inputs") or {}
    return tuple(Cause(name, before.get(name), after.get(name), name in replaces) for name in names)


def _diagnostic(value: dict[str, Any], summary: Summary) -> Told | None:
    text = _MARKUP.sub("", value.get("message") or "").strip()
    severity = value.get("severity") or ""
    if not text or value.get("ephemeral") or severity == "debug":
        return None
    if severity == "error":
        summary.errors.append(text)
    return Told("diagnostic", value.get("urn") or "", severity, text)


def _changes(counts: dict[str, int]) -> Changes:
    """The engine counts a replacement as ``replace``, or as its parts."""
    replaced = counts.get("replace", 0) or counts.get("create-replacement", 0)
    return Changes(
        create=counts.get("create", 0) + counts.get("import", 0),
        update=counts.get("update", 0),
        replace=replaced,
        delete=counts.get("delete", 0) + counts.get("discard", 0),
        same=counts.get("same", 0),
    )
