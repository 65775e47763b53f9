"""Diagnostics of the local cloud -> (failure kind, where, the provider's words). Ours, so the kind is in the text."""

from __future__ import annotations

from skyinfra.stacks.clouds.failures import parse

__all__ = ["classify"]


def classify(diagnostics: str) -> tuple[str, str, str] | None:
    """None when nothing in the text is from this cloud."""
    found = parse(diagnostics)
    return None if found is None else (found.kind, found.where, found.words)
