"""Import, help and status as whole processes, beside a bare Python start."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from bench.measure import Row, median_s, seconds_row, wall_s
from skyinfra.testing.world import World

COMMANDS = ("launch", "exec", "status", "queue", "logs", "cancel", "down", "doctor")


def rows(world: World) -> Iterator[Row]:
    """Figures of the command line; the server is warm for `status`."""
    python = sys.executable
    cli = [python, "-m", "skyinfra.cli.main"]
    floor = f"python -c pass: {median_s(lambda: wall_s([python, '-c', 'pass'], world.env)):.3f} s"
    taken = median_s(lambda: wall_s([python, "-c", "import skyinfra"], world.env))
    yield seconds_row("import skyinfra", 0.10, taken, floor)
    taken = median_s(lambda: wall_s([*cli, "--help"], world.env))
    yield seconds_row("--help", 0.15, taken, f"{floor}; SkyPilot 0.14.1: 1.55 s")
    worst = max((median_s(lambda c=c: wall_s([*cli, c, "--help"], world.env), 3), c) for c in COMMANDS)
    yield seconds_row(f"COMMAND --help (slowest: {worst[1]})", 0.20, worst[0], floor)
    world.run("api", "start")
    taken = median_s(lambda: wall_s([*cli, "status"], world.env))
    yield seconds_row("status, server warm", 0.26, taken, "SkyPilot 0.14.1: 2.6 s")
