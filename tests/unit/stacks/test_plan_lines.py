"""A preview's steps as lines of a plan."""

from __future__ import annotations

from skyinfra.stacks.backend import State
from skyinfra.stacks.events import Cause, Planned, Summary, translate
from skyinfra.stacks.plan import LATER, plan_of, resources_of
from skyinfra.stacks.provider.calls import UNKNOWN

MACHINE = "skyinfra:local:Machine"
URN = f"urn:pulumi:s::skyinfra::{MACHINE}::s-0"


def test_the_steps_of_a_replacement_are_one_line_with_every_cause():
    gpus, slot = Cause("gpus", None, ["H100", 1], True), Cause("slot", 0, 1)
    steps = [Planned(URN, op, MACHINE, (gpus,)) for op in ("delete-replaced", "replace")]
    [line] = plan_of([*steps, Planned(URN, "create-replacement", MACHINE, (slot,))])
    assert (line["op"], line["name"], line["refused"]) == ("replace", "s-0", True)
    assert [cause["property"] for cause in line["causes"]] == ["gpus", "slot"]
    assert not plan_of(steps, consent=["*"])[0]["refused"]
    assert not plan_of(steps, consent=[URN])[0]["refused"]


def test_a_value_that_is_not_known_yet_says_so():
    [line] = plan_of([Planned(URN, "update", MACHINE, (Cause("x", 1, UNKNOWN),))])
    assert line["causes"] == [{"property": "x", "before": 1, "after": LATER, "replaces": False}]


def test_the_engines_bookkeeping_is_no_line():
    steps = [Planned("u", "create", "pulumi:pulumi:Stack"), Planned("v", "create", "pulumi:providers:skyinfra")]
    assert plan_of(steps) == []
    held = State({"resources": [{"urn": "u::n", "type": "pulumi:pulumi:Stack"}, {"urn": "a::b", "type": "t"}]})
    assert resources_of(held) == [{"urn": "a::b", "type": "t", "name": "b", "id": "", "inputs": {}}]


def test_causes_are_read_from_the_engines_diff_and_replacing_keys():
    summary = Summary()
    old, new = {"inputs": {"cpus": 1, "gpus": None}}, {"inputs": {"cpus": 2, "gpus": ["A", 1]}}
    metadata = {
        "urn": URN,
        "op": "update",
        "type": MACHINE,
        "diffs": ["cpus"],
        "keys": ["gpus"],
        "old": old,
        "new": new,
    }
    translate({"resourcePreEvent": {"metadata": metadata}}, summary, preview=True)
    assert summary.steps[0].causes == (Cause("cpus", 1, 2), Cause("gpus", None, ["A", 1], True))
