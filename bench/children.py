"""The agent's queue and the stack floor are programs of their own: their JSON becomes rows of the one table."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from bench.measure import Row
from skyinfra.testing.world import World


def _figures(module: str, *args: str) -> dict[str, Any]:
    argv = [sys.executable, "-m", module, *args]
    return json.loads(subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()[-1])


def rows(world: World) -> Iterator[Row]:
    """One row per figure; the queue's rate against its promise."""
    for name, value in _figures("bench.agent_queue").items():
        kept = float(value) >= 250 if name == "jobs_per_s" else None
        yield Row(f"agent: {name}", ">= 250" if kept is not None else "-", str(value), "", kept)
    for name, value in _figures("bench.stack_floor", "-n", "3", "-o", "json").items():
        yield Row(f"stack: {name}", "-", str(value))
