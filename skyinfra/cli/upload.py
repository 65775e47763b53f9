"""How far an upload is, on a terminal."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from skyinfra.cli import out
from skyinfra.client.files import Progress

__all__ = ["shown"]

WORTH_SHOWING = 1 << 20


@contextlib.contextmanager
def shown() -> Iterator[Progress | None]:
    """A progress function while standard error is a terminal, else None; its line is gone at the end."""
    if not out.is_terminal(sys.stderr):
        yield None
        return

    def show(destination: str, sent: int, size: int) -> None:
        if size >= WORTH_SHOWING:
            sys.stderr.write(f"\r\033[KSending {destination}: {sent / 1e6:.1f} of {size / 1e6:.1f} MB")
            sys.stderr.flush()

    try:
        yield show
    finally:
        sys.stderr.write("\r\033[K")
        sys.stderr.flush()
