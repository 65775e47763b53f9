"""How the bed's servers live: on a port of the kernel's choice, told in a file, and no longer than who started them.

Nobody looks for a free port first: between the look and the bind another process may take it, and answer for ours.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

__all__ = ["end_with_parent", "tell_port"]


def tell_port(place: str, port: int) -> None:
    """Whole or not at all."""
    new = Path(f"{place}.new")
    new.write_text(str(port))
    new.rename(place)


def end_with_parent() -> None:
    """Its end of our standard input tells, also when it was killed."""

    def wait() -> None:
        sys.stdin.buffer.read()
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()
