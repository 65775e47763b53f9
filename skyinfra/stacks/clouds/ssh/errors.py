"""Diagnostics of the ssh cloud -> (failure kind, where, words). Ours, so the kind is in the text."""

from __future__ import annotations

from skyinfra.stacks.clouds.local.errors import classify

__all__ = ["classify"]
