"""Sixteen local nodes: from machines to agents that are ready, and a gang's submit to its first line."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

from bench.measure import RUNS, Row, seconds_row
from skyinfra.testing.world import World

NODES = 16
TASK = """\
num_nodes: {nodes}
resources: {{infra: local, cpus: 0.5+}}
run: echo first
"""


def rows(world: World) -> Iterator[Row]:
    """The launch as a person waits for it (engine included); then medians of `exec` until the log's first line."""
    path = world.root / "gang.yaml"
    path.write_text(TASK.format(nodes=NODES))
    world.run("launch", "-y", "-c", "warm", str(world.task("hi", "true")))
    begin = time.monotonic()
    world.run("launch", "-y", "-c", "gang", str(path), timeout_s=300)
    launched = time.monotonic() - begin
    firsts = [_first_line_s(world) for _ in range(RUNS + 1)][1:]
    world.run("down", "-y", "gang", timeout_s=300)
    world.run("down", "-y", "warm")
    yield seconds_row(f"launch of {NODES} nodes, all of it", 4.0, launched)
    yield seconds_row(f"exec on {NODES} nodes to the first line", 1.0, statistics.median(firsts))


def _first_line_s(world: World) -> float:
    begin = time.monotonic()
    argv = [sys.executable, "-m", "skyinfra.cli.main", "exec", "gang", "--num-nodes", str(NODES), "echo first"]
    with subprocess.Popen(argv, env=world.env, cwd=world.root, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as it:
        assert it.stdout is not None
        line = it.stdout.readline()
        took = time.monotonic() - begin
        it.stdout.read()
    assert b"first" in line, f"exec gave {line!r}"
    return took
