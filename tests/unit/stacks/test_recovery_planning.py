"""Recovery is planned by a pure function: these are its cases."""

from __future__ import annotations

import dataclasses

from skyinfra.model.spec import Slot
from skyinfra.stacks.backend import State
from skyinfra.stacks.recovery import apply_to_state, plan_recovery

ROOT = "urn:pulumi:c-abcdef::skyinfra::pulumi:pulumi:Stack::skyinfra-c-abcdef"
CLUSTER = "urn:pulumi:c-abcdef::skyinfra::skyinfra:index:Cluster::c-abcdef"
MACHINE = "urn:pulumi:c-abcdef::skyinfra::skyinfra:index:Cluster$skyinfra:local:Machine::c-abcdef-0"
AGENT = "urn:pulumi:c-abcdef::skyinfra::skyinfra:index:Cluster$skyinfra:index:Agent::c-abcdef-0"


def root():
    return {"urn": ROOT, "type": "pulumi:pulumi:Stack"}


def component():
    return {"urn": CLUSTER, "type": "skyinfra:index:Cluster", "parent": ROOT}


def machine(**more):
    inputs = {"cluster": "c-abcdef", "slot": 0, "incarnation": 0}
    return {"urn": MACHINE, "type": "skyinfra:local:Machine", "parent": CLUSTER, "inputs": inputs, **more}


def agent(**more):
    return {"urn": AGENT, "type": "skyinfra:index:Agent", "parent": CLUSTER, "deletedWith": MACHINE, **more}


def seen(state="running", slot=0, incarnation=0):
    identifier = f"c-abcdef-{slot}-{incarnation}"
    return {
        "id": identifier,
        "cluster": "c-abcdef",
        "slot": slot,
        "incarnation": incarnation,
        "state": state,
        "internal_ip": "127.1.1.1",
        "external_ip": "127.0.0.1",
    }


def state(resources, pending=()):
    return State({"resources": list(resources), "pending_operations": list(pending)})


def begun(kind, resource):
    return {"type": kind, "resource": resource}


def whats(actions):
    return [(action.what, action.urn or action.id) for action in actions]


def test_a_state_that_agrees_with_the_cloud_needs_nothing(spec):
    settled = state([root(), component(), machine(id="c-abcdef-0-0"), agent(id="c-abcdef-0-0")])
    assert plan_recovery(settled, [seen()], spec, down=False) == []
    assert apply_to_state(settled, [], [seen()]) is None


def test_a_begun_create_whose_machine_exists_is_adopted_and_finished_by_the_next_up(spec):
    interrupted = state([root(), component()], [begun("creating", machine())])
    plan = plan_recovery(interrupted, [seen("creating")], spec, down=False)
    assert whats(plan) == [("adopt", MACHINE)]
    corrected = apply_to_state(interrupted, plan, [seen("creating")])
    adopted = corrected["resources"][-1]
    assert (adopted["id"], adopted["outputs"]["internal_ip"]) == ("c-abcdef-0-0", "127.1.1.1")
    assert adopted["initErrors"]
    assert "pending_operations" not in corrected


def test_a_begun_create_of_which_nothing_exists_is_cleared(spec):
    interrupted = state([root(), component()], [begun("creating", machine())])
    plan = plan_recovery(interrupted, [], spec, down=False)
    assert whats(plan) == [("clear", MACHINE)]
    assert [r["urn"] for r in apply_to_state(interrupted, plan, [])["resources"]] == [ROOT, CLUSTER]


def test_a_create_whose_parent_was_never_recorded_is_left_to_the_next_up(spec):
    interrupted = state([root()], [begun("creating", machine())])
    assert whats(plan_recovery(interrupted, [seen()], spec, down=False)) == [("clear", MACHINE)]


def test_a_begun_agent_is_cleared_because_its_create_may_simply_be_repeated(spec):
    interrupted = state([root(), component(), machine(id="c-abcdef-0-0")], [begun("creating", agent())])
    assert whats(plan_recovery(interrupted, [seen()], spec, down=False)) == [("clear", AGENT)]


def test_a_machine_that_is_gone_is_dropped_with_its_agent(spec):
    stale = state([root(), component(), machine(id="c-abcdef-0-0"), agent(id="c-abcdef-0-0")])
    plan = plan_recovery(stale, [], spec, down=False)
    assert whats(plan) == [("drop", MACHINE)]
    assert [r["urn"] for r in apply_to_state(stale, plan, [])["resources"]] == [ROOT, CLUSTER]


def test_a_half_deleted_machine_is_deleted_and_dropped(spec):
    half = state([root(), component(), machine(id="c-abcdef-0-0")], [begun("deleting", machine(id="c-abcdef-0-0"))])
    plan = plan_recovery(half, [seen("deleting")], spec, down=False)
    assert whats(plan) == [("clear", MACHINE), ("drop", MACHINE), ("delete", "c-abcdef-0-0")]


def test_a_stray_incarnation_is_deleted_and_one_the_spec_wants_is_left_for_the_up(spec):
    observed = [seen(incarnation=0), seen(incarnation=1)]
    newer = dataclasses.replace(spec, slots=(Slot(0, incarnation=1),))
    assert whats(plan_recovery(State(), observed, newer, down=False)) == [("delete", "c-abcdef-0-0")]


def test_without_a_spec_no_machine_is_deleted_for_being_unknown():
    assert plan_recovery(State(), [seen()], None, down=False) == []


def test_before_a_destroy_nothing_is_deleted_one_by_one(spec):
    half = state([root(), component(), machine(id="c-abcdef-0-0")])
    plan = plan_recovery(half, [seen("deleting"), seen(slot=3)], spec, down=True)
    assert whats(plan) == [("drop", MACHINE)]
