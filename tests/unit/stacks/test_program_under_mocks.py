"""The cluster program: spec in, resources out."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from pathlib import Path
from typing import Any

import pulumi
import pytest

from skyinfra.model.spec import ClusterSpec, Slot
from skyinfra.stacks import program

GOLDEN = Path(__file__).parent / "golden"


class Mocks(pulumi.runtime.Mocks):
    def __init__(self) -> None:
        self.made: list[tuple[str, str, dict[str, Any]]] = []

    def new_resource(self, args: pulumi.runtime.MockResourceArgs) -> tuple[str, dict]:
        self.made.append((args.typ, args.name, dict(args.inputs)))
        outputs = {"internal_ip": "127.1.1.1", "external_ip": "127.0.0.1", "channel": {"kind": "local"}}
        return f"id-of-{args.name}", {**args.inputs, **outputs}

    def call(self, args: pulumi.runtime.MockCallArgs) -> dict:
        raise AssertionError(f"the program invokes nothing, not {args.token}")


@pytest.fixture
def mocks() -> Mocks:
    return Mocks()


def plan(mocks: Mocks, spec: ClusterSpec) -> tuple[list, list]:
    """What the program declares, and its nodes."""
    seen: list = []

    async def declare() -> None:
        pulumi.runtime.set_mocks(mocks, project="skyinfra", stack="c-abcdef")  # it belongs to the running loop
        cluster = program.Cluster(spec.stack, program.ClusterArgs(spec))
        seen.extend(await cluster.nodes.future())

    asyncio.run(declare())
    return [made for made in mocks.made if made[0] not in (program.CLUSTER_TYPE, "pulumi:pulumi:Stack")], seen


def test_each_slot_is_a_machine_and_its_agent(mocks, spec):
    made, nodes = plan(mocks, dataclasses.replace(spec, slots=(Slot(1), Slot(0))))
    assert sorted((kind, name) for kind, name, _ in made) == [
        ("skyinfra:index:Agent", "c-abcdef-0"),
        ("skyinfra:index:Agent", "c-abcdef-1"),
        ("skyinfra:local:Machine", "c-abcdef-0"),
        ("skyinfra:local:Machine", "c-abcdef-1"),
    ]
    assert [node["slot"] for node in nodes] == [0, 1]
    assert set(nodes[0]) == {"slot", "id", "internal_ip", "external_ip", "channel", "incarnation"}


def test_an_agent_is_told_its_machine_and_never_an_address(mocks, spec):
    made, _ = plan(mocks, dataclasses.replace(spec, boot=3, slots=(Slot(0, agent_generation=2),)))
    [inputs] = [inputs for kind, _, inputs in made if kind == "skyinfra:index:Agent"]
    assert inputs == {
        "cloud": "local",
        "machine_id": "id-of-c-abcdef-0",
        "slot": 0,
        "version": "1",
        "boot": 3,
        "generation": 2,
    }


def test_a_stopped_cluster_keeps_its_machines_and_has_no_agents(mocks, spec):
    made, nodes = plan(mocks, dataclasses.replace(spec, power="stopped"))
    assert [kind for kind, _, _ in made] == ["skyinfra:local:Machine"]
    assert made[0][2]["power"] == "stopped"
    assert nodes[0]["channel"] is None


def test_a_machine_carries_its_tags_and_size(mocks, spec):
    slot = Slot(0, incarnation=2, cpus=4, memory_gb=8, gpus=("H100", 2), spot=True)
    made, _ = plan(mocks, dataclasses.replace(spec, slots=(slot,)))
    [inputs] = [inputs for kind, _, inputs in made if kind == "skyinfra:local:Machine"]
    expected = {"cluster": "c-abcdef", "server": "server", "workspace": "default", "slot": 0, "incarnation": 2}
    expected |= {"cpus": 4, "memory_gb": 8, "gpus": ["H100", 2], "spot": True, "power": "running"}
    assert inputs == expected


def test_equal_specs_declare_equal_resources(mocks, spec):
    first, _ = plan(mocks, spec)
    mocks.made.clear()
    second, _ = plan(mocks, ClusterSpec.from_json(json.loads(json.dumps(spec.to_json()))))
    assert first == second


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.json")), ids=lambda path: path.stem)
def test_a_recorded_spec_of_a_release_still_plans_what_it_planned_then(mocks, path):
    """A changed input of an existing resource would update, or replace, machines of users who only upgraded."""
    recorded = json.loads(path.read_text())
    made, _ = plan(mocks, ClusterSpec.from_json(recorded["spec"]))
    assert json.loads(json.dumps(sorted(made))) == recorded["resources"]
