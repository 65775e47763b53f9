"""`CloudError`: a failure that knows its kind. Its text form is what survives the trip through the engine.

The engine hands a provider's error on as text, so the kind travels in it: ``skyinfra[capacity]: no 8 CPUs here``;
`parse` finds it again in whatever the engine wrapped around it. Clouds whose providers are not ours have patterns in
``clouds/<name>/errors.py`` instead.
"""

from __future__ import annotations

import re
from typing import get_args

from skyinfra.stacks.operation import FailureKind

__all__ = ["KINDS", "CloudError", "parse"]

KINDS: frozenset[str] = frozenset(get_args(FailureKind))
_TEXT = re.compile(r"skyinfra\[(?P<kind>[a-z_]+)(?: at (?P<where>[^\]]+))?\]: (?P<words>[^\n]*)")


class CloudError(Exception):
    """A cloud refused or failed. `kind` is a `FailureKind`, `where` the place it is about ("" = everywhere)."""

    def __init__(self, kind: FailureKind, words: str, where: str = "") -> None:
        place = f" at {where}" if where else ""
        super().__init__(f"skyinfra[{kind}{place}]: {words}")
        self.kind: FailureKind = kind
        self.words = words
        self.where = where


def parse(text: str) -> CloudError | None:
    """The `CloudError` whose text form is somewhere in `text`, or None."""
    match = _TEXT.search(text)
    if match is None or match["kind"] not in KINDS:
        return None
    return CloudError(match["kind"], match["words"].strip(), match["where"] or "")  # type: ignore[arg-type]
