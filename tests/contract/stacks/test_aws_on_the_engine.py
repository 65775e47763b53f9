"""A cluster on EC2: the unmodified provider classes, the real engine, moto behind the provider's double."""

import dataclasses
import json
import os

import pytest

from skyinfra.model.spec import ClusterSpec, Slot
from skyinfra.stacks.backend import FileBackend
from skyinfra.testing.aws.bed import AwsBed
from skyinfra.testing.aws.fault_proxy import Rule

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIz5vpbLPuJ6u0RBTxHGzmIuVY2nQEJzqCCVbc6vKJqP t@t"
AMI = "ami-1e749f67"


@pytest.fixture(scope="module")
def account(tmp_path_factory):
    """One moto and one resident provider for the module: each test finds an empty account."""
    bed = AwsBed(tmp_path_factory.mktemp("aws"), resident=True)
    yield bed
    bed.close()


@pytest.fixture
def bed(account, cluster, monkeypatch):
    account.reset()
    account.install(cluster.home)
    for name, value in account.env.items():
        monkeypatch.setenv(name, value)
    cluster.spec = aws_spec(cluster.spec.stack)
    return account


def aws_spec(stack: str, nodes: int = 2, **fields) -> ClusterSpec:
    slots = tuple(Slot(n, instance_type="t3.micro", cpus=2, disk_gb=30, image=AMI) for n in range(nodes))
    known = {"region": "us-east-1", "public_key": KEY, "labels": {"team": "vision"}, **fields}
    return ClusterSpec("server", "default", "me", "c", stack, "aws", slots, **known)


def slots_of(bed) -> list[str]:
    tags = [{tag["Key"]: tag["Value"] for tag in one["Tags"]} for one in bed.instances()]
    return sorted(f"{tag['skyinfra-slot']}.{tag['skyinfra-incarnation']}" for tag in tags)


def test_up_makes_it_all_tagged_and_down_leaves_nothing(cluster, bed):
    up = cluster.up(dataclasses.replace(cluster.spec, ports=("8080", "9000-9010")))
    assert up.outcome == "succeeded", up
    assert len(up.nodes) == 2
    assert {node["id"] for node in up.nodes} == {one["InstanceId"] for one in bed.instances()}
    for instance in bed.instances():
        tags = {tag["Key"]: tag["Value"] for tag in instance["Tags"]}
        assert tags["skyinfra-cluster"] == cluster.spec.stack
        assert (tags["skyinfra-server"], tags["skyinfra-workspace"], tags["team"]) == ("server", "default", "vision")
        assert instance["MetadataOptions"]["HttpTokens"] == "required"
    group = [one for one in bed.client().describe_security_groups()["SecurityGroups"] if one["GroupName"] != "default"]
    ports = sorted((one.get("FromPort"), one.get("ToPort")) for one in group[0]["IpPermissions"] if one.get("FromPort"))
    assert [port for port in ports if port != (-1, -1)] == [(22, 22), (8080, 8080), (9000, 9010)]

    again = cluster.up(dataclasses.replace(cluster.spec, ports=("8080", "9000-9010")))
    assert (again.outcome, again.changes.same) == ("succeeded", up.changes.create), again

    down = cluster.run("destroy", cluster.spec)
    assert down.outcome == "succeeded", down
    assert bed.leftovers() == []
    assert cluster.left() == []


def test_no_state_holds_a_credential(cluster, bed):
    assert cluster.up().outcome == "succeeded"
    held = [path for path in cluster.home.root.rglob("*") if path.is_file()]
    secret = os.environ["AWS_SECRET_ACCESS_KEY"].encode()
    assert held
    assert [str(path) for path in held if secret in path.read_bytes()] == []


def test_a_node_ended_by_hand_is_the_only_one_made_again(cluster, bed):
    up = cluster.up()
    first, second = (node["id"] for node in up.nodes)
    bed.client().terminate_instances(InstanceIds=[second])
    healed = cluster.up()
    assert healed.outcome == "succeeded", healed
    assert healed.changes.create == 1
    assert healed.nodes[0]["id"] == first
    assert slots_of(bed) == ["0.0", "1.0"]


def test_stop_and_start_keep_the_machine_and_change_its_address(cluster, bed):
    up = cluster.up()
    stopped = cluster.up(dataclasses.replace(cluster.spec, power="stopped"))
    assert stopped.outcome == "succeeded", stopped
    assert {one["State"]["Name"] for one in bed.instances()} == {"stopped"}
    started = cluster.up(dataclasses.replace(cluster.spec, boot=1))
    assert started.outcome == "succeeded", started
    assert {one["State"]["Name"] for one in bed.instances()} == {"running"}
    assert [node["id"] for node in started.nodes] == [node["id"] for node in up.nodes]


def test_another_incarnation_replaces_one_machine_and_only_with_consent(cluster, bed):
    up = cluster.up()
    wanted = cluster.spec.with_slot(1, incarnation=1)
    refused = cluster.up(wanted)
    assert (refused.outcome, refused.kind) == ("failed", "consent"), refused
    assert slots_of(bed) == ["0.0", "1.0"]
    replaced = cluster.up(wanted, consent=("*",))
    assert replaced.outcome == "succeeded", replaced
    assert slots_of(bed) == ["0.0", "1.1"]
    assert replaced.nodes[0]["id"] == up.nodes[0]["id"]


def test_spot_is_asked_for_once(cluster, bed):
    spec = dataclasses.replace(cluster.spec, slots=(dataclasses.replace(cluster.spec.slots[0], spot=True),))
    assert cluster.up(spec).outcome == "succeeded"
    assert [one.get("InstanceLifecycle") for one in bed.instances()] == ["spot"]
    assert cluster.up(spec).changes.create == 0
    assert cluster.run("destroy", spec).outcome == "succeeded"
    assert bed.leftovers() == []


@pytest.mark.parametrize(
    ("refusal", "kind", "words"),
    [
        ("capacity", "capacity", "InsufficientInstanceCapacity"),
        ("permission", "permission", "ec2:RunInstances"),
        ("no_image", "user", "ami-0123456789abcdef0"),
    ],
)
def test_what_ec2_refuses_is_told_by_its_kind_and_down_leaves_nothing(cluster, bed, refusal, kind, words):
    bed.rule(bed.refuse(refusal))
    up = cluster.up()
    assert (up.outcome, up.kind) == ("failed", kind), up
    assert words in up.message
    assert cluster.run("destroy", cluster.spec).outcome == "succeeded"
    assert bed.leftovers() == []


def test_bad_credentials_are_never_nothing_there(cluster, bed):
    assert cluster.up().outcome == "succeeded"
    bed.rule(bed.refuse("bad_credentials", action=None))
    down = cluster.run("destroy", cluster.spec)
    assert (down.outcome, down.kind) == ("failed", "credentials"), down
    assert len(bed.instances()) == 2
    bed.rule()
    assert cluster.run("destroy", cluster.spec).outcome == "succeeded"
    assert bed.leftovers() == []


@pytest.mark.parametrize(
    "action",
    [
        "RunInstances",
        "AuthorizeSecurityGroupIngress",
        pytest.param("CreateSecurityGroup", marks=pytest.mark.slow),
        pytest.param("ImportKeyPair", marks=pytest.mark.slow),
    ],
)
def test_an_answer_that_was_lost_leaves_nothing_that_no_stack_names(cluster, bed, action):
    """The provider asks again and is told that it exists, or makes another one: the next up takes over or deletes."""
    bed.rule(Rule(action=action, lose=True, times=1))
    cluster.up()
    bed.rule()
    healed = cluster.up()
    assert healed.outcome == "succeeded", healed
    assert slots_of(bed) == ["0.0", "1.0"]
    state = FileBackend(cluster.home.backend).load(cluster.spec.stack)
    named = {resource.get("id") for resource in state.resources}
    assert {one["InstanceId"] for one in bed.instances()} <= named, json.dumps(sorted(map(str, named)))
    assert cluster.run("destroy", cluster.spec).outcome == "succeeded"
    assert bed.leftovers() == []
