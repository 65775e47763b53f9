"""What the engine printed -> failure kind. The one place that trusts text, pinned by recorded outputs in the tests.

Clouds come first (``clouds/<name>/errors.py``): a capacity error inside a failed update is a capacity error. What
nobody knows is ``engine``: recover, then once again.
"""

from __future__ import annotations

import importlib
import re
from typing import cast

from skyinfra.stacks.operation import FailureKind

__all__ = ["classify", "is_shortage"]

#: The first pattern that matches decides; the message is for people and adds what to do.
_ENGINE: tuple[tuple[str, FailureKind, str], ...] = (
    (r"stack is currently locked", "engine", "another operation holds the stack"),
    (r"snapshot integrity failure", "engine", "the stack's state is inconsistent"),
    (r"incorrect passphrase", "engine", "the passphrase file does not fit the stack's state"),
    (r"pending operations", "engine", "the stack has operations that never ended"),
    (r"no resource plugin|failed to load plugin|could not load plugin", "engine", "a provider plugin cannot be loaded"),
    (r"no stack named", "engine", "there is no such stack"),
    (r"no space left on device", "engine", "the disk is full"),
    (r"python inline source runtime error", "ours", "the cluster program failed"),
)


def classify(cloud: str, diagnostics: list[str], printed: str) -> tuple[FailureKind, str]:
    """The kind, and one line for people. `printed` is the engine's own output, looked at last."""
    everything = "\n".join([*diagnostics, printed])
    known = importlib.import_module(f"skyinfra.stacks.clouds.{cloud}.errors").classify(everything)
    if known is not None:
        kind, where, words = known
        return cast(FailureKind, kind), f"{words} ({where})" if where else words
    for pattern, kind, message in _ENGINE:
        if re.search(pattern, everything, re.IGNORECASE):
            return kind, f"{message}: {_first_line(everything, pattern)}"
    return "engine", _first_line(everything, r"error:|failed") or "the engine failed without a word"


def _first_line(text: str, pattern: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    matching = [line for line in lines if re.search(pattern, line, re.IGNORECASE)]
    return (matching or lines or [""])[0][:300]


def is_shortage(cloud: str, diagnostics: list[str]) -> bool:
    """Whether waiting for the other resources of this update is pointless: this place has no room."""
    known = importlib.import_module(f"skyinfra.stacks.clouds.{cloud}.errors").classify("\n".join(diagnostics))
    return known is not None and known[0] in ("capacity", "quota", "spot_price")
