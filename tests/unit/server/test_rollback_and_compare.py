"""What comes back in a rollback, and what a comparison of two updates says. Pure."""

from __future__ import annotations

import dataclasses

import pytest

from skyinfra.model.spec import ClusterSpec, Slot
from skyinfra.server.fleet.history import compare_resources
from skyinfra.server.fleet.plans import spec_changes
from skyinfra.server.fleet.rollback import rolled_back

NOW = ClusterSpec(
    *("server", "default", "me", "c", "c-abcdef", "local"),
    (Slot(0, incarnation=2, agent_generation=3, cpus=4.0),),
    region="local",
    power="stopped",
    boot=5,
    agent_version="new",
    labels={"a": "now"},
)


def test_a_rollback_takes_what_the_cluster_is_made_of_and_never_lowers_a_counter():
    slots = (Slot(0, incarnation=1, agent_generation=9, cpus=1.0), Slot(1, incarnation=7))
    then = dataclasses.replace(
        NOW, slots=slots, power="running", boot=1, agent_version="old", labels={"a": "then"}, ports=("80",)
    )
    back = rolled_back(NOW, then)
    assert back.slots == (Slot(0, incarnation=2, agent_generation=3, cpus=1.0), Slot(1, incarnation=7))
    assert (back.labels, back.ports) == ({"a": "then"}, ("80",))
    assert (back.power, back.boot, back.agent_version) == ("stopped", 5, "new")


def test_a_rollback_to_another_place_is_refused():
    with pytest.raises(ValueError, match="was on aws us-east-1 then"):
        rolled_back(NOW, dataclasses.replace(NOW, cloud="aws", region="us-east-1"))


def test_spec_changes_name_slots_and_leave_identity_out():
    other = dataclasses.replace(NOW, slots=(Slot(0, incarnation=2, agent_generation=3, cpus=8.0),), stack="x", boot=6)
    assert spec_changes(NOW.to_json(), other.to_json()) == [
        {"property": "boot", "before": 5, "after": 6},
        {"property": "slots[0].cpus", "before": 4.0, "after": 8.0},
    ]


def test_a_tuple_and_what_json_made_of_it_are_equal():
    spec = dataclasses.replace(NOW, slots=(Slot(0, gpus=("H100", 1)),), ports=("80",)).to_json()
    as_json = {**spec, "ports": ["80"], "slots": [{**spec["slots"][0], "gpus": ["H100", 1]}]}
    assert spec_changes(spec, as_json) == []


def test_resources_compare_by_urn_and_a_new_id_is_a_replacement():
    def held(urn, identifier="i", **inputs):
        return {"urn": urn, "type": "t", "name": urn, "id": identifier, "inputs": inputs}

    one = [held("same", a=1), held("gone"), held("changed", a=1), held("moved", "i1")]
    two = [held("same", a=1), held("changed", a=2), held("moved", "i2"), held("new")]
    lines = {line["urn"]: (line["op"], line["causes"]) for line in compare_resources(one, two)}
    assert lines == {
        "gone": ("delete", []),
        "changed": ("update", [{"property": "a", "before": 1, "after": 2}]),
        "moved": ("replace", []),
        "new": ("create", []),
    }


def test_what_nobody_knows_is_not_compared():
    assert compare_resources(None, []) == []
