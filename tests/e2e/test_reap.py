"""What belongs to no cluster is found, taken in again or removed."""

from __future__ import annotations

import json
import os
import shutil
import signal

import pytest

from skyinfra.testing.world import World

pytestmark = [pytest.mark.engine, pytest.mark.timeout(240)]


def _lose_the_database(world: World) -> None:
    world.run("api", "stop")
    for path in world.home.root.glob("skyinfra.db*"):
        path.unlink()


def test_what_a_lost_database_leaves_is_listed_adopted_and_removed(world: World) -> None:
    task = str(world.task("t", "echo hi > ~/kept"))
    world.run("launch", "-y", "-c", "Train.One", task)
    world.run("launch", "-y", "-c", "b", task)
    assert "belongs to a cluster" in world.run("reap", "--dry-run").stderr
    _lose_the_database(world)
    assert world.json("status") == []
    listed = world.run("reap", "--dry-run", check=1).stdout.splitlines()
    assert listed[0].split() == ["STACK", "CLOUD", "MACHINES", "SINCE", "COST/hr"]
    assert ["(running)" in line for line in listed[1:]] == [True, True]
    refused = world.run("reap", check=1)
    assert "add -y" in refused.stderr
    world.run("reap", "--adopt", "-y")
    assert {record["name"]: record["status"] for record in world.json("status")} == {"Train.One": "INIT", "b": "INIT"}
    world.run("launch", "-y", "-c", "b", str(world.task("again", "cat ~/kept")))
    assert [record["status"] for record in world.json("status", "b")] == ["UP"]
    _lose_the_database(world)
    world.run("reap", "-y")
    assert world.json("status") == []
    assert list(world.home.nodes.iterdir()) == []
    assert "belongs to a cluster" in world.run("reap", "--dry-run").stderr
    assert world.run("doctor").returncode == 0


def test_a_stack_whose_machines_are_gone_is_removed_too(world: World) -> None:
    world.run("launch", "-y", "-c", "gone", str(world.task("t", "true")))
    (node,) = world.home.nodes.iterdir()
    _lose_the_database(world)
    for process in world.processes():
        if process.env.get("SKYINFRA_AGENT_STATE", "").startswith(str(node)):
            os.kill(process.pid, signal.SIGKILL)
    shutil.rmtree(node)
    (orphan,) = json.loads(world.run("reap", "--dry-run", "-o", "json", check=1).stdout)["orphans"]
    assert (orphan["name"], orphan["machines"], orphan["cloud"]) == ("gone", [], "local")
    world.run("reap", "-y")
    assert list((world.home.backend / ".pulumi" / "stacks").glob("*/*.json")) == []
