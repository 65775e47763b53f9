"""Clusters on EC2 whose instances are real hosts: the agent comes over SSH, jobs run there, addresses change."""

import json
import shutil
import tempfile
from pathlib import Path

import pytest

from skyinfra.testing.aws.bed import AwsBed
from skyinfra.testing.aws.machines import Ec2Machines, public_pool
from skyinfra.testing.hosts import HostLab, HostsUnavailable
from skyinfra.testing.world import World


@pytest.fixture
def lab():
    try:
        lab = HostLab()
    except HostsUnavailable as exc:
        pytest.skip(str(exc))
    with lab:
        yield lab


@pytest.fixture
def bed(tmp_path, lab):
    bed = AwsBed(tmp_path / "aws", resident=True, public_pool=public_pool(lab))
    machines = Ec2Machines(bed, lab)
    yield bed
    machines.close()
    bed.close()
    assert machines.errors == []


@pytest.fixture
def world(bed):
    root = Path(tempfile.mkdtemp(prefix="skyw-"))  # short: unix sockets lie in it
    world = World(root, env=bed.env)
    bed.install(world.home)
    world.run("check", "aws")
    yield world
    world.close()
    shutil.rmtree(root)


def test_the_whole_life_of_a_cluster_on_machines_that_answer(world, bed, lab):
    asked = {"infra": "aws/us-east-1", "instance_type": "m6i.large", "disk_size": 30}
    task = world.root / "task.yaml"
    task.write_text(json.dumps({"name": "t", "resources": asked, "run": "echo on $(hostname); touch ~/kept"}))
    launched = world.run("launch", "-y", "-c", "c", str(task), timeout_s=110)
    [instance] = bed.instances()
    assert f"on {instance['InstanceId']}" in launched.stdout
    before = instance["PublicIpAddress"]

    world.run("stop", "-y", "c", timeout_s=60)
    assert [one["State"]["Name"] for one in bed.instances()] == ["stopped"]
    world.run("start", "-y", "c", timeout_s=110)
    [instance] = bed.instances()
    assert (instance["State"]["Name"], instance["PublicIpAddress"] != before) == ("running", True)
    again = world.run("exec", "c", "ls ~/kept", timeout_s=60)
    assert "kept" in again.stdout

    lose_the_database(world)
    listed = world.run("reap", "--dry-run", check=1, timeout_s=60).stdout
    assert instance["InstanceId"] in listed
    assert "aws/us-east-1" in listed
    world.run("reap", "-y", timeout_s=90)
    assert bed.leftovers() == []
    assert world.json("status") == []
    of_others = {"GetParameter": "ssm", "GetCallerIdentity": "sts"}
    needed = {f"{of_others.get(call['action'], 'ec2')}:{call['action']}" for call in bed.calls() if call["action"]}
    assert needed <= allowed(), "docs/how-to/aws-policy.json has every right that this took"


def allowed() -> set[str]:
    policy = json.loads((Path(__file__).parents[2] / "docs" / "how-to" / "aws-policy.json").read_text())
    return {action for statement in policy["Statement"] for action in statement["Action"]}


def lose_the_database(world):
    world.run("api", "stop")
    for path in world.home.root.glob("skyinfra.db*"):
        path.unlink()
