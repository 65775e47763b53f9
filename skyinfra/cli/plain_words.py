"""Words of a command line become text, whole numbers and lists of text without a validation library.

typer hands each parameter to pydantic, whose import takes longer than all the rest of a command's start. What every
command here takes is as good as read already; anything else (a number that is none, a type that is new here) still goes
typer's way and gets typer's words. Should typer's insides change, nothing is replaced and commands only start slower.
"""

from __future__ import annotations

from typing import Any

import typer.core

__all__ = ["install"]


def install() -> None:
    """Once per process, before a command is built."""
    original = getattr(typer.core, "build_runtime_param", None)
    if original is None or getattr(original, "plain", False):
        return

    def build(descriptor: Any) -> Any:
        return (
            _Plain(descriptor, original)
            if descriptor.annotation in (str, int, bool, list[str])
            else original(descriptor)
        )

    build.plain = True  # type: ignore[attr-defined]
    typer.core.build_runtime_param = build  # type: ignore[attr-defined]  # where typer looks it up


class _Plain:
    """One parameter's reading."""

    def __init__(self, descriptor: Any, original: Any) -> None:
        self._descriptor = descriptor
        self._original = original

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """The value; raises typer's `BadParameter` for one that is none."""
        kind = self._descriptor.annotation
        many = param.multiple or param.nargs == -1
        if value is None:
            return () if many else None
        if (
            many
            and kind == list[str]
            and isinstance(value, (list, tuple))
            and all(isinstance(one, str) for one in value)
        ):
            return list(value)
        if not many and kind in (str, bool) and isinstance(value, kind):
            return value
        if not many and kind is int and isinstance(value, (int, str)) and str(value).removeprefix("-").isdecimal():
            return int(value)
        return self._original(self._descriptor).coerce(value, param=param, ctx=ctx)
