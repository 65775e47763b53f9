"""Holding a process still at a named step boundary, and the list of those names.

A boundary is a call ``boundary("agent.spawn.made")`` in the product (`skyinfra.runtime.boundary`). `Faults.arm` asks
the next process that reaches one to stand still there; `Hold.wait_reached` says who it is; `Hold.release` lets it go
on. While it stands, the caller kills whom it wants. `find_boundaries` reads the names out of the sources and out of
the table of request steps, so the list can never be behind them.
"""

from __future__ import annotations

import ast
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from skyinfra.server.requests import boundaries as request_boundaries

__all__ = ["Faults", "Hold", "find_boundaries"]

PACKAGE = Path(__file__).resolve().parent.parent


def find_boundaries(package: Path = PACKAGE) -> list[str]:
    """Every name in a `boundary(…)` call of the package, and those of the request steps, sorted."""
    found = set(request_boundaries())
    for path in package.rglob("*.py"):
        if "testing" not in path.relative_to(package).parts:
            found.update(_names_in(path))
    return sorted(found)


def _names_in(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        first = node.args[0] if node.args else None
        if called == "boundary" and isinstance(first, ast.Constant) and isinstance(first.value, str):
            yield first.value


@dataclass
class Hold:
    """One armed boundary. Raises `TimeoutError` when nobody comes by."""

    folder: Path
    name: str

    def wait_reached(self, timeout_s: float) -> int:
        """The pid of the process that stands still here."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if (pid := self.reached()) is not None:
                return pid
            time.sleep(0.005)
        raise TimeoutError(f"nobody reached {self.name} in {timeout_s:g} s")

    def reached(self) -> int | None:
        for path in self.folder.glob(f"{self.name}.reached.*"):
            return int(path.suffix[1:])
        return None

    def release(self) -> None:
        """Let whoever stands here go on; nobody after it stops."""
        (self.folder / self.name).unlink(missing_ok=True)
        for path in self.folder.glob(f"{self.name}.reached.*"):
            path.unlink(missing_ok=True)


class Faults:
    """The folder that ``SKYINFRA_FAULTS`` names."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def arm(self, name: str) -> Hold:
        """The next process that reaches `name` stands still there."""
        (self.folder / name).touch()
        return Hold(self.folder, name)
