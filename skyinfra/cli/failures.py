"""How an exception looks on a terminal: one `error:` line, a `hint:` when there is one, never a traceback.

SKYINFRA_DEBUG=1 adds the traceback and the detail that operators want.
"""

from __future__ import annotations

import os
import sys

from skyinfra.cli import out

__all__ = ["Left", "UsageError", "report"]


class UsageError(Exception):
    """The command line itself is wrong: exit code 2."""


class Left(Exception):
    """The user left a wait, and was told how to come back. Carries the exit code: 130 for Ctrl-C, 146 for Ctrl-Z."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def report(error: Exception) -> int:
    """Print what went wrong; the exit code."""
    if isinstance(error, Left):
        return error.code
    message = str(error).strip() or type(error).__name__
    hint = getattr(error, "hint", None)
    if isinstance(error, KeyError):
        message = f"KeyError: {message}"
    out.error(message, hint)
    if os.environ.get("SKYINFRA_DEBUG") == "1":
        import traceback

        traceback.print_exception(error, file=sys.stderr)
        if getattr(error, "detail", None):
            out.say(f"detail: {error.detail}")  # type: ignore[attr-defined]
    return 2 if isinstance(error, UsageError) else 1
