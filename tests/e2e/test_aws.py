"""Clusters on EC2 as a user makes them, against moto behind the fault proxy."""

import json

import pytest

from skyinfra.testing.aws.bed import AwsBed
from skyinfra.testing.world import World


@pytest.fixture
def bed(tmp_path):
    bed = AwsBed(tmp_path / "aws", resident=True)
    yield bed
    bed.close()


@pytest.fixture
def world(tmp_path, bed):
    world = World(tmp_path / "world", env=bed.env)
    bed.install(world.home)
    world.run("check", "aws")
    yield world
    world.close()


def task(world: World, **resources) -> str:
    asked = {"infra": "aws", "instance_type": "m6i.large", "disk_size": 30, **resources}
    path = world.root / "task.yaml"
    path.write_text(json.dumps({"name": "t", "resources": asked, "run": "echo hello"}))
    return str(path)


def test_when_no_region_has_room_every_attempt_is_told_and_nothing_is_left(world, bed):
    bed.rule(bed.refuse("capacity"))
    done = world.run("launch", "-y", "-c", "c", task(world), check=None, timeout_s=240)
    said = done.stdout + done.stderr
    assert done.returncode == 1, said
    assert "Traceback" not in said
    tried = {call["region"] for call in bed.calls("RunInstances")}
    assert tried == {"us-east-1", "us-west-2", "eu-west-1"}
    for region in tried:
        assert f"aws/{region}" in said
        assert bed.leftovers(region) == []
    assert "InsufficientInstanceCapacity" in said
    assert "--retry-until-up" in said
    assert world.json("status") == []
    assert world.home.backend.exists()
    assert [path for path in world.home.backend.rglob("c-*") if path.is_file()] == []


def test_bad_input_is_one_line_and_makes_nothing(world, bed):
    done = world.run("launch", "-y", "-c", "c", task(world, infra="aws/us-east-1", image_id="ami-0"), check=None)
    assert done.returncode == 1
    assert "ami-0" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    bed.rule(bed.refuse("expired", action=None))
    done = world.run("launch", "-y", "-c", "c", task(world), check=None)
    assert done.returncode == 1
    assert "expired" in done.stderr
    assert world.json("status") == []
    assert bed.leftovers() == []
