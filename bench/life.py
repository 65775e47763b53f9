"""Server start, launch, exec, launch again, down: whole commands on the local cloud, beside the engine's own floor."""

from __future__ import annotations

import itertools
import statistics
import sys
import time
from collections.abc import Iterator

from bench.measure import RUNS, Row, median_s, pss_mib, seconds_row, wall_s
from skyinfra.testing.world import World, wait_until


def rows(world: World) -> Iterator[Row]:
    """Figures of a cluster's life."""
    cli = [sys.executable, "-m", "skyinfra.cli.main"]
    task = str(world.task("hi", "echo hi"))

    def command(*args: str) -> float:
        return wall_s([*cli, *args], world.env, world.root)

    def cold_start() -> float:
        world.run("api", "stop")
        wait_until(lambda: not world.processes("server"), 15, "the server ended")
        return command("api", "start")

    yield seconds_row("server start", 1.2, median_s(cold_start), "SkyPilot 0.14.1: 5.9 s")

    names = itertools.count()
    launches, downs = [], []
    for _ in range(RUNS + 1):
        name = f"n{next(names)}"
        launches.append(command("launch", "-y", "-c", name, task))
        downs.append(command("down", "-y", name))
    yield seconds_row(
        "fresh launch of echo hi, server warm", 1.9, statistics.median(launches[1:]), "SkyPilot on EC2: 28 s"
    )
    yield seconds_row("down", 0.8, statistics.median(downs[1:]))

    cold = []
    for _ in range(3):
        world.run("api", "stop")
        wait_until(lambda: not world.processes("server"), 15, "the server ended")
        name = f"n{next(names)}"
        cold.append(command("launch", "-y", "-c", name, task))
        command("down", "-y", name)
    yield seconds_row("fresh launch of echo hi, server cold", 4.0, statistics.median(cold))

    command("launch", "-y", "-c", "kept", task)
    yield seconds_row("launch again", 0.9, median_s(lambda: command("launch", "-y", "-c", "kept", task)))
    yield seconds_row(
        "exec of echo hi, attached", 0.5, median_s(lambda: command("exec", "kept", task)), "SkyPilot: 11.2 s"
    )
    yield from _memory(world)
    yield _line_delay(world)


def _memory(world: World) -> Iterator[Row]:
    wait_until(lambda: world.processes("worker"), 15, "a spare worker waits")
    time.sleep(2)  # the spare has imported what it imports; there is no event for "idle"
    server = [p.pid for p in world.processes() if p.role in ("server", "worker")]
    mib = pss_mib(server)
    yield Row("server + spare worker, idle", "<= 140 MiB PSS", f"{mib:.0f} MiB", "SkyPilot 0.14.1: 973 MiB", mib <= 140)
    agents = [p.pid for p in world.processes("agent")]
    mib = pss_mib(agents)
    yield Row("agent + zygote, idle", "<= 35 MiB PSS", f"{mib:.1f} MiB", f"{len(agents)} processes", mib <= 35)


def _line_delay(world: World) -> Row:
    """From the job's write to the client's standard output: the job prints its clock, we compare with ours."""
    script = 'for i in $(seq 30); do python3 -c "import time; print(time.time(), flush=True)"; sleep 0.1; done'
    client = world.popen("exec", "kept", str(world.task("clock", script)))
    assert client.stdout is not None
    delays = []
    for line in client.stdout:
        text = line.decode().rpartition(") ")[2].strip()
        if text.replace(".", "", 1).isdigit():
            delays.append(time.time() - float(text))
    client.wait(30)
    taken = statistics.median(delays)
    return Row(
        "log line to the terminal", "<= 50 ms", f"{taken * 1000:.1f} ms", f"of {len(delays)} lines", taken <= 0.05
    )
