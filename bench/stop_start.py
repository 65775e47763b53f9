"""Stop and start of a small cluster: whole commands, the server warm."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator

from bench.measure import RUNS, Row, seconds_row, wall_s
from skyinfra.testing.world import World


def rows(world: World) -> Iterator[Row]:
    """Medians over rounds of stop and start; the first round does not count."""
    cli = [sys.executable, "-m", "skyinfra.cli.main"]
    world.run("launch", "-y", "-c", "nap", str(world.task("hi", "echo hi")))
    stops, starts = [], []
    for _ in range(RUNS + 1):
        stops.append(wall_s([*cli, "stop", "-y", "nap"], world.env, world.root))
        starts.append(wall_s([*cli, "start", "-y", "nap"], world.env, world.root))
    world.run("down", "-y", "nap")
    yield seconds_row("stop", 1.0, statistics.median(stops[1:]))
    yield seconds_row("start", 1.2, statistics.median(starts[1:]))
