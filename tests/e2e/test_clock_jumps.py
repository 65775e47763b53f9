"""The time of day jumps by an hour, for the server, its workers and the agent: no deadline moves, nothing is lost."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import Any

import pytest

from skyinfra.testing.clock import WallClock, compiler
from skyinfra.testing.world import World, wait_until

JUMPS = pytest.mark.parametrize("jump", [3600, -3600])
ONE_JUMP = pytest.mark.parametrize("jump", [pytest.param(3600, marks=pytest.mark.slow), -3600])
"""The other is for --all."""

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(240),
    pytest.mark.skipif(compiler() is None, reason="there is no C compiler (Debian: apt-get install tcc)"),
]


@pytest.fixture
def clock(world: World) -> WallClock:
    clock = WallClock(world.root)
    world.env.update(clock.variables())
    return clock


def _status(world: World) -> str:
    (record,) = world.json("status", "c")
    return record["status"]


def _stays_up(world: World) -> None:
    """Looked at for a while: the clocks that could stop it look every second."""
    ends = time.monotonic() + 2
    while time.monotonic() < ends:
        assert _status(world) == "UP"


def _agent(world: World) -> dict[str, Any]:
    (record,) = world.home.nodes.glob("*/agent/agent.json")
    return json.loads(record.read_text())


def _kill(pid: int | None) -> None:
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


def _all_have_its_clock(world: World) -> bool:
    return all("SKYINFRA_FAULTS_CLOCK" in p.env for p in world.processes() if p.role in ("server", "agent", "worker"))


@JUMPS
def test_an_idle_cluster_is_neither_stopped_early_nor_kept(world: World, clock: WallClock, jump: int) -> None:
    world.env["SKYINFRA_MINUTE_S"] = "1"
    world.run("launch", "-y", "-c", "c", "-i", "900", str(world.task("t", "echo data > ~/kept")))
    assert _all_have_its_clock(world)
    clock.jump(jump)
    _stays_up(world)
    before = _agent(world)
    _kill(before["pid"])
    wait_until(lambda: _agent(world)["pid"] != before["pid"] and _status(world) == "UP", 60, "another agent")
    _stays_up(world)
    _kill(world.server_pid())
    _stays_up(world)
    world.run("autostop", "-y", "c", "-i", "2")
    wait_until(lambda: _status(world) == "STOPPED", 60, "it was idle for two of its minutes")
    clock.jump(0)
    assert "data" in world.run("launch", "-y", "-c", "c", str(world.task("u", "cat ~/kept"))).stdout
    world.run("down", "-y", "c")


@ONE_JUMP
def test_a_job_and_its_log_go_on(world: World, clock: WallClock, jump: int) -> None:
    go = world.root / "go"
    script = f"echo begun; until [ -e {go} ]; do sleep 0.05; done; echo ended"
    client = world.popen("launch", "-y", "-c", "c", str(world.task("t", script)))
    wait_until(lambda: list(world.home.nodes.glob("*/home/sky_logs/1-*/run.log")), 60, "it runs")
    clock.jump(jump)
    assert "quick" in world.run("exec", "c", "echo quick").stdout
    world.run("exec", "-d", "c", "sleep 600")
    world.run("cancel", "-y", "c", "3")
    go.touch()
    out, err = client.communicate(timeout=60)
    assert client.returncode == 0, err
    assert [line.rpartition(") ")[2] for line in out.decode().splitlines()][-2:] == ["begun", "ended"]
    assert [job["status"] for job in world.json("queue", "c")] == ["CANCELLED", "SUCCEEDED", "SUCCEEDED"]
    world.run("down", "-y", "c")


@ONE_JUMP
def test_an_operation_that_is_under_way_keeps_its_deadline(world: World, clock: WallClock, jump: int) -> None:
    world.run("api", "start")
    hold = world.faults.arm("provider.machine.create.made")
    client = world.popen("launch", "-y", "-c", "c", str(world.task("t", "echo hi")))
    hold.wait_reached(60)
    clock.jump(jump)
    hold.release()
    out, err = client.communicate(timeout=90)
    assert (client.returncode, b"hi" in out) == (0, True), err
    world.run("down", "-y", "c")


@pytest.mark.slow
@JUMPS
def test_who_waits_for_room_and_a_shortage_that_is_remembered_wait_no_longer(
    world: World, clock: WallClock, jump: int
) -> None:
    (world.home.root / "local.yaml").write_text("{cpus: 2, memory_gb: 2, gpus: {H100: 1}}")
    world.env["SKYINFRA_RETRY_S"] = "0.5"
    task = str(world.task("t", "echo hi", resources={"infra": "local", "accelerators": "H100:1"}))
    world.run("launch", "-y", "-c", "a", task)
    waiting = world.popen("launch", "-y", "-r", "-c", "c", task)
    wait_until(lambda: any(r["status"] == "WAITING" for r in world.json("api", "status")), 60, "it waits")
    clock.jump(jump)
    world.run("down", "-y", "a")
    out, err = waiting.communicate(timeout=90)
    assert (waiting.returncode, b"hi" in out) == (0, True), err
    world.run("down", "-y", "c")
