"""Plans, history, diff and rollback on the real engine, as a user types them."""

from __future__ import annotations

import json

import pytest

import skyinfra as sky
from skyinfra.testing.world import World

pytestmark = [pytest.mark.engine, pytest.mark.timeout(180)]


def launch(world: World, cpus: float, *options: str) -> str:
    task = world.task(f"t{cpus}", "echo hi", resources={"infra": "local", "cpus": cpus, "memory": 1})
    return world.run("launch", "-y", "-c", "c", *options, str(task)).stdout


def numbered(world: World) -> dict[int, tuple[str, str]]:
    return {one["number"]: (one["kind"], one["verb"]) for one in world.json("history", "c")}


def test_a_cluster_is_planned_made_changed_compared_rolled_back_removed_and_remembered(world: World) -> None:
    planned = launch(world, 1, "--dryrun")
    assert "Plan for cluster c (new):" in planned
    assert "3 to create, 0 unchanged" in planned
    assert "Cost: $0.00/h -> $0.00/h" in planned
    assert world.json("status") == []
    assert not world.home.nodes.exists()
    assert list(world.home.operations.iterdir()) == []
    assert not list(world.home.backend.rglob("c-*"))

    launch(world, 1)
    assert "no changes\n3 unchanged" in launch(world, 1, "--dryrun")
    world.run("down", "-y", "c")
    launch(world, 2)
    assert numbered(world) == {1: ("up", "launch"), 2: ("destroy", "down"), 3: ("up", "launch")}

    found = world.run("diff", "c", "@1", "@3").stdout
    assert "slots[0].cpus: 1.0 -> 2.0" in found
    assert "cpus: 1 -> 2" in found

    refused = world.run("rollback", "c", "--to", "1", check=1)
    assert "1 to change, 2 unchanged" in refused.stdout
    assert "add -y to confirm" in refused.stderr
    assert 4 not in numbered(world)
    world.run("rollback", "c", "--to", "1", "-y")
    assert numbered(world)[4] == ("up", "rollback")
    assert "cpus=1" in world.json("status")[0]["resources_str"]
    assert world.run("diff", "c", "@1").stderr.strip() == "No differences."
    assert world.run("exec", "c", str(world.task("again", "echo still here"))).stdout.count("still here") == 1

    made = world.run("logs", "--provision", "c").stdout
    assert "changed" in made
    assert "is as it was after update 1" in made
    operations = world.run("api", "status", "-a", "-v").stdout
    assert "up v2 +0 ~1 -0 succeeded" in operations

    world.run("down", "-y", "c")
    assert numbered(world)[5] == ("destroy", "down")
    assert "There never was a cluster" in world.run("history", "nope", check=1).stderr


def test_the_same_from_python(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in world.env.items():
        monkeypatch.setenv(name, value)
    task = sky.Task(run="echo hi", resources=sky.Resources(infra="local", cpus=1, memory=1))
    request = sky.launch(task, cluster_name="c", dryrun=True)
    assert sky.get(request) == (None, None)
    plan = sky.plan_of(request)
    assert plan is not None
    assert (plan["exists"], [one["op"] for one in plan["resources"]]) == (False, ["create"] * 3)
    sky.get(sky.launch(task, cluster_name="c"))
    [update] = sky.get(sky.history("c"))
    assert (update["number"], update.changes["create"]) == (1, 4)
    assert sky.get(sky.diff("c")).spec == []
    assert sky.get(sky.rollback("c", 1, dryrun=True))["plan"]["changes"]["update"] == 0
    with pytest.raises(ValueError, match="no update 7"):
        sky.get(sky.rollback("c", 7))
    sky.get(sky.down("c"))


def test_bad_words_are_usage_errors(world: World) -> None:
    assert "an update is @1" in world.run("diff", "c", "@x", check=2).stderr
    assert "an update is @1" in world.run("rollback", "c", "--to", "0", check=2).stderr
    assert "--to" in world.run("rollback", "c", check=2).stderr
    assert json.loads(world.run("api", "status", "-a", "-o", "json").stdout) == []
