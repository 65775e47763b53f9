"""Recorded versions before this one, run for real: their client, their running agent, the state folder they made."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from previous_version import Previous, environment, recorded, write_files

from skyinfra.runtime import package
from skyinfra.testing.world import World, wait_until

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

SMALL = {"infra": "local", "cpus": 1, "memory": 1}
BEAT = "i=0; while [ ! -e {stop} ]; do i=$((i+1)); echo beat $$ $i; sleep 0.05; done; echo end $i"


@pytest.fixture(scope="module", params=recorded(), ids=lambda previous: previous.folder.name)
def previous(request: pytest.FixtureRequest) -> Previous:
    return request.param


@pytest.fixture(scope="module")
def unpacked(previous: Previous, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return previous.unpack(tmp_path_factory.mktemp("previous"))


@pytest.fixture
def old(world: World, unpacked: Path) -> dict[str, str]:
    """The environment in which a command of `world`, and the server that it starts, are of the previous version."""
    return environment(world.env, unpacked)


def _kill_server(world: World) -> None:
    pid = world.server_pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not os.path.exists(f"/proc/{pid}") or not world.processes("server"), 20, "the server is gone")


def _agent(world: World) -> dict[str, Any]:
    (record,) = world.home.nodes.glob("*/agent/agent.json")
    return json.loads(record.read_text())


def _beating(world: World) -> tuple[Path, Path]:
    """A task that counts until a file is there, and that file."""
    stop = world.root / "stop-beating"
    return world.task("beat", BEAT.format(stop=stop)), stop


def _check_beats(log: str) -> None:
    beats = re.findall(r"beat (\d+) (\d+)", log)
    assert len({pid for pid, _ in beats}) == 1, "one process wrote them"
    assert [int(number) for _, number in beats] == list(range(1, len(beats) + 1))
    assert f"end {len(beats)}" in log


def test_the_recorded_package_is_the_one_that_it_says(previous: Previous, old: dict[str, str]) -> None:
    code = "from skyinfra.runtime import package; print(package.__file__, package.agent_version())"
    argv = [sys.executable, "-c", code]  # the current folder comes before PYTHONPATH
    done = subprocess.run(argv, cwd=old["PYTHONPATH"], env=old, check=True, capture_output=True, text=True)
    file, version = done.stdout.split()
    assert file.startswith(old["PYTHONPATH"])
    assert version == previous.about["agent_version"]


def test_each_command_of_a_previous_client_does_on_this_server_what_it_did_on_its_own(
    previous: Previous, world: World, old: dict[str, str]
) -> None:
    recording = previous.requests
    write_files(world.root, recording["files"])
    world.run("api", "start")
    server = world.server_pid()
    for command in recording["commands"]:
        if command["argv"][0] == "python":
            continue  # calls of the SDK: their requests are checked in tests/contract/server
        world.run(*command["argv"], env=old, check=command["code"])
    assert world.server_pid() == server, "it was this tree's server all along"
    assert world.json("status") == []


def test_a_running_cluster_of_a_previous_version_is_taken_over_with_its_job_unbroken(
    previous: Previous, world: World, old: dict[str, str]
) -> None:
    task, stop = _beating(world)
    world.run("launch", "-y", "-d", "-c", "c", str(task), env=old)
    assert _agent(world)["version"] == previous.about["agent_version"]
    before = _agent(world)
    _kill_server(world)

    (record,) = world.json("status")
    assert record["status"] == "UP"
    assert [job["status"] for job in world.json("queue", "c")] == ["RUNNING"]
    assert "on the old agent" in world.run("exec", "c", "echo on the old agent").stdout
    world.run("exec", "-d", "c", str(world.task("long", "sleep 600")))
    world.run("cancel", "-y", "c", "3")
    assert world.run("logs", "c", "3", check=103).returncode == 103
    assert _agent(world) == before, "nothing of that needed another agent"

    same = package.agent_version() == previous.about["agent_version"]
    assert _planned(world, str(task)) == ([] if same else [("~", "agent")])
    world.run("launch", "-y", "-c", "c", str(world.task("new", "echo on the new agent")))
    assert _agent(world)["version"] == package.agent_version()
    assert [job["status"] for job in world.json("queue", "c")][-1] == "RUNNING"
    stop.touch()
    _check_beats(world.run("logs", "c", "1").stdout)
    world.run("down", "-y", "c")
    assert list(world.home.nodes.iterdir()) == []
    assert world.json("history", "c")[-1]["version"] == 1, "the update that the previous version made is told, too"


def _planned(world: World, task: str) -> list[tuple[str, str]]:
    """Sign and kind of each resource that a launch would change."""
    return re.findall(r"^  ([+~±-]) (\w+) ", world.run("launch", "--dryrun", "-c", "c", task).stdout, re.MULTILINE)


def test_an_agent_of_a_previous_version_is_told_its_autostop_stopped_started_and_removed(
    world: World, old: dict[str, str]
) -> None:
    for name in ("a", "b"):
        world.run("launch", "-y", "-c", name, str(world.task(name, "echo kept > ~/kept", resources=SMALL)), env=old)
    world.run("stop", "-y", "b", env=old)
    _kill_server(world)
    world.run("autostop", "-y", "-i", "600", "a")
    world.run("stop", "-y", "a")
    assert {record["name"]: record["status"] for record in world.json("status")} == {"a": "STOPPED", "b": "STOPPED"}
    world.run("start", "-y", "a", "b")
    for name in ("a", "b"):
        assert "kept" in world.run("exec", name, "cat ~/kept").stdout
    assert {record["name"]: record["autostop"] for record in world.json("status")} == {"a": 600, "b": -1}
    world.run("down", "-y", "-a")
    assert list(world.home.nodes.iterdir()) == []
    assert world.run("doctor").returncode == 0


def test_a_cluster_of_a_previous_version_goes_down_without_a_new_agent(world: World, old: dict[str, str]) -> None:
    task, _ = _beating(world)
    world.run("launch", "-y", "-d", "-c", "c", str(task), env=old)
    _kill_server(world)
    world.run("down", "-y", "c")
    assert list(world.home.nodes.iterdir()) == []
    wait_until(lambda: not [p for p in world.processes() if "SKYINFRA_AGENT_STATE" in p.env], 15, "no process left")


@pytest.mark.parametrize("boundary", ["request.launch.place.made", "request.launch.provision.made"])
def test_a_launch_that_a_previous_version_began_is_finished_by_this_one(
    world: World, old: dict[str, str], boundary: str
) -> None:
    world.run("api", "start", env=old)
    hold = world.faults.arm(boundary)
    client = world.popen("launch", "-y", "-c", "c", str(world.task("t", f"echo x >> {world.witness}/ran")), env=old)
    hold.wait_reached(60)
    _kill_server(world)
    hold.release()
    client.kill()  # it would start a server of its own version
    client.communicate()
    world.run("api", "start")

    def done() -> bool:
        return [r["status"] for r in world.json("api", "status", "-a") if r["name"] == "sky.launch"] == ["SUCCEEDED"]

    wait_until(done, 90, "the launch has succeeded")
    world.run("logs", "c")
    assert (world.witness / "ran").read_text() == "x\n"
    world.run("down", "-y", "c")
