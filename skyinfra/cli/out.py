"""Printing: standard output is data, standard error is talk. Colour only on a terminal, and never with NO_COLOR."""

from __future__ import annotations

import json
import os
import sys
from typing import IO, Any

__all__ = ["colour", "error", "interactive", "is_terminal", "print_json", "say"]

_COLOURS = {"red": 31, "green": 32, "yellow": 33, "cyan": 36, "bold": 1, "dim": 2}


def say(text: str) -> None:
    """A line for people."""
    print(text, file=sys.stderr, flush=True)


def error(message: str, hint: str | None = None) -> None:
    """`error: …`, and on a line of its own what to do next."""
    say(f"{colour('error:', 'red', sys.stderr)} {message}")
    if hint:
        say(f"{colour('hint:', 'cyan', sys.stderr)} {hint}")


def print_json(value: Any) -> None:
    """Data as JSON; enums and handles in their plain form."""
    from skyinfra.client.decode import plain

    print(json.dumps(plain(value), indent=2, ensure_ascii=False))


def colour(text: str, name: str, stream: IO[str] | None = None) -> str:
    """`text` in a colour when `stream` (standard output) is a terminal that wants it."""
    if not is_terminal(stream or sys.stdout) or os.environ.get("NO_COLOR"):
        return text
    return f"\033[{_COLOURS[name]}m{text}\033[0m"


def is_terminal(stream: IO[str]) -> bool:
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def interactive() -> bool:
    """True when someone can answer a question."""
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()
