"""Recovery on a cloud where a second Create makes a second machine: what neither state nor pending names."""

import pytest

from skyinfra.model.spec import ClusterSpec, Slot
from skyinfra.stacks.backend import State
from skyinfra.stacks.recovery import apply_to_state, plan_recovery

HEAD = "urn:pulumi:c-1::skyinfra::"
CLUSTER = f"{HEAD}skyinfra:index:Cluster::c-1"
PROVIDER = f"{HEAD}skyinfra:index:Cluster$pulumi:providers:aws::c-1-aws"
KIND = "aws:ec2/instance:Instance"
SHARED = [
    {"urn": CLUSTER, "type": "skyinfra:index:Cluster"},
    {"urn": PROVIDER, "type": "pulumi:providers:aws", "id": "p1"},
]


def urn(slot: int) -> str:
    return f"{HEAD}skyinfra:index:Cluster${KIND}::c-1-{slot}"


def spec(nodes: int = 2) -> ClusterSpec:
    return ClusterSpec("s", "default", "me", "c", "c-1", "aws", tuple(Slot(n) for n in range(nodes)), region="r")


def instance(slot: int, identifier: str, incarnation: int = 0) -> dict:
    tags = {"skyinfra-slot": str(slot), "skyinfra-incarnation": str(incarnation)}
    return {"urn": urn(slot), "type": KIND, "id": identifier, "parent": CLUSTER, "inputs": {"tags": tags}}


def seen(slot: int, identifier: str, incarnation: int = 0, state: str = "running") -> dict:
    where = {"internal_ip": None, "external_ip": None}
    return {"slot": slot, "incarnation": incarnation, "id": identifier, "state": state, **where}


def state(*resources: dict, pending: tuple[dict, ...] = ()) -> State:
    operations = [{"type": "creating", "resource": {k: v for k, v in one.items() if k != "id"}} for one in pending]
    return State({"resources": [*SHARED, *resources], "pending_operations": operations})


def plan(have: State, *machines: dict, nodes: int = 2, down: bool = False) -> list[tuple[str, str, str]]:
    actions = plan_recovery(have, list(machines), spec(nodes), down, by_tag=True)
    return [(action.what, action.urn.rpartition("::")[2], action.id) for action in actions]


def test_the_machine_of_a_create_cut_short_is_taken_over_with_what_was_asked_of_it():
    have = state(pending=(instance(0, ""),))
    assert plan(have, seen(0, "i-0")) == [("adopt", "c-1-0", "i-0")]
    machines = [seen(0, "i-0")]
    corrected = apply_to_state(have, plan_recovery(have, machines, spec(), False, by_tag=True), machines)
    assert "pending_operations" not in corrected
    assert corrected["resources"][-1]["id"] == "i-0"
    assert corrected["resources"][-1]["outputs"]["tags"]["skyinfra-slot"] == "0"


def test_a_create_cut_short_that_made_nothing_is_cleared():
    assert plan(state(pending=(instance(0, ""),))) == [("clear", "c-1-0", "")]


def test_of_two_machines_for_one_begun_create_one_is_kept():
    found = plan(state(pending=(instance(0, ""),)), seen(0, "i-0"), seen(0, "i-1"))
    assert found == [("adopt", "c-1-0", "i-0"), ("delete", "", "i-1")]


def test_a_second_machine_of_a_slot_that_has_one_is_deleted():
    assert plan(state(instance(0, "i-0")), seen(0, "i-0"), seen(0, "i-9")) == [("delete", "", "i-9")]


def test_a_replacement_cut_short_is_deleted_and_the_old_machine_stays():
    have = state(instance(0, "i-0"), pending=(instance(0, "", incarnation=1),))
    wanted = ClusterSpec("s", "default", "me", "c", "c-1", "aws", (Slot(0, incarnation=1),), region="r")
    actions = plan_recovery(have, [seen(0, "i-0"), seen(0, "i-1", 1)], wanted, False, by_tag=True)
    assert [(one.what, one.id) for one in actions] == [("clear", ""), ("delete", "i-1")]


def test_a_machine_that_a_lost_checkpoint_named_is_taken_over_as_an_import():
    have = state(instance(0, "i-0"))
    machines = [seen(0, "i-0"), seen(1, "i-1")]
    actions = plan_recovery(have, machines, spec(), False, by_tag=True)
    assert [(one.what, one.urn, one.id) for one in actions] == [("adopt", urn(1), "i-1")]
    adopted = apply_to_state(have, actions, machines)["resources"][-1]
    assert (adopted["inputs"], adopted["outputs"], adopted["parent"]) == ({}, {}, CLUSTER)
    assert adopted["provider"] == f"{PROVIDER}::p1"


def test_a_machine_that_no_slot_wants_is_deleted():
    assert plan(state(instance(0, "i-0")), seen(0, "i-0"), seen(3, "i-3"), nodes=1) == [("delete", "", "i-3")]


def test_one_that_is_ending_is_waited_for_and_leaves_the_state():
    found = plan(state(instance(0, "i-0")), seen(0, "i-0", state="deleting"))
    assert found == [("drop", "c-1-0", ""), ("delete", "", "i-0")]


@pytest.mark.parametrize("machines", [(), (seen(0, "i-0"), seen(5, "i-5"))])
def test_before_a_down_nothing_is_deleted_first(machines):
    assert [one for one in plan(state(), *machines, down=True) if one[0] == "delete"] == []
