"""What a resource handler sees of the engine: `Call`; and `Resource`, what the servicer asks of each handler.

The rule that nothing made is ever missing from the state lives in `Call.made`: a handler calls it before its first side
effect, and from then on the servicer turns every failure of that Create into ``ErrorResourceInitFailed``, which the
engine records with the id. Before it, a failure is a plain error and the state holds nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

__all__ = ["UNKNOWN", "Call", "DiffResult", "Resource", "changed", "plain"]

#: How the engine writes a value that is not known yet, during a preview.
UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"

Properties = dict[str, Any]


@dataclass
class Call:
    """One Create, Update or Delete. `cancelled` turns true when the engine that called was interrupted."""

    urn: str
    cancelled: Callable[[], bool]
    id: str | None = None
    outputs: Properties = field(default_factory=dict)

    def made(self, identifier: str, outputs: Properties) -> None:
        """From here on something may exist under this id."""
        self.id = identifier
        self.outputs = outputs


@dataclass(frozen=True)
class DiffResult:
    """Which inputs differ, and which of those need a new resource."""

    changed: tuple[str, ...] = ()
    replaces: tuple[str, ...] = ()
    delete_before_replace: bool = False


class Resource(Protocol):
    """A resource type. Every method may raise `CloudError`; each has its own deadline, the engine has none."""

    token: str

    def check(self, inputs: Properties) -> dict[str, str]:
        """What is wrong: property -> reason."""
        ...

    def diff(self, olds: Properties, news: Properties) -> DiffResult: ...

    def preview(self, inputs: Properties, olds: Properties | None) -> Properties:
        """The outputs as far as they are known before a create or update."""
        ...

    def create(self, call: Call, inputs: Properties) -> tuple[str, Properties]: ...

    def read(self, identifier: str, outputs: Properties) -> Properties | None:
        """The outputs now; None = proven gone. Answers within 2 s, and never raises for what it cannot reach."""
        ...

    def update(self, call: Call, identifier: str, inputs: Properties, olds: Properties) -> Properties: ...

    def delete(self, call: Call, identifier: str, outputs: Properties) -> None: ...


def changed(olds: Mapping[str, Any], news: Mapping[str, Any], names: tuple[str, ...]) -> tuple[str, ...]:
    """Which of these inputs differ; one that is not known yet counts as different."""
    return tuple(name for name in names if news.get(name) == UNKNOWN or plain(olds.get(name)) != plain(news.get(name)))


def plain(value: Any) -> Any:
    """A protobuf value as JSON has it: 2.0 becomes 2, absent and null are one."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items() if item is not None}
    return value
