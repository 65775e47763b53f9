"""Recorded engine output: events, diagnostics, consent."""

from __future__ import annotations

import pytest

from skyinfra.stacks.clouds.failures import CloudError, parse
from skyinfra.stacks.consent import unasked
from skyinfra.stacks.errors import classify, is_shortage
from skyinfra.stacks.events import Planned, Summary, Told, translate
from skyinfra.stacks.operation import Changes

MACHINE = "urn:pulumi:c::skyinfra::skyinfra:index:Cluster$skyinfra:local:Machine::c-0"
AGENT = "urn:pulumi:c::skyinfra::skyinfra:index:Cluster$skyinfra:index:Agent::c-0"


def step(kind, op, urn=MACHINE, type="skyinfra:local:Machine"):
    return {kind: {"metadata": {"op": op, "urn": urn, "type": type}}}


def test_a_create_is_told_when_it_began_and_when_it_is_done():
    summary = Summary()
    assert translate(step("resourcePreEvent", "create"), summary, preview=False) == Told("began", MACHINE, "create")
    assert translate(step("resOutputsEvent", "create"), summary, preview=False) == Told("done", MACHINE, "create")
    assert translate(step("resOpFailedEvent", "create"), summary, preview=False) == Told("failed", MACHINE, "create")


def test_what_stays_the_same_and_the_engines_own_resources_are_not_told():
    summary = Summary()
    assert translate(step("resourcePreEvent", "same"), summary, preview=False) is None
    provider = step("resourcePreEvent", "create", "urn:p", "pulumi:providers:skyinfra")
    assert translate(provider, summary, preview=True) is None
    assert [planned.op for planned in summary.steps] == ["same", "create"]


def test_an_error_diagnostic_is_kept_without_its_markup():
    summary = Summary()
    event = {"diagnosticEvent": {"urn": MACHINE, "severity": "error", "message": "<{%fg 1%}>no room<{%reset%}>\n"}}
    assert translate(event, summary, preview=False) == Told("diagnostic", MACHINE, "error", "no room")
    assert summary.errors == ["no room"]


def test_debug_and_ephemeral_diagnostics_are_dropped():
    for extra in ({"severity": "debug"}, {"severity": "info", "ephemeral": True}):
        assert translate({"diagnosticEvent": {"message": "x", **extra}}, Summary(), preview=False) is None


def test_the_summary_counts_a_replacement_once():
    summary = Summary()
    translate({"summaryEvent": {"resourceChanges": {"replace": 2, "same": 2, "delete": 1}}}, summary, preview=False)
    assert summary.changes == Changes(replace=2, same=2, delete=1)
    assert summary.has_changes


def test_only_sames_are_no_change():
    summary = Summary()
    translate(step("resourcePreEvent", "same"), summary, preview=True)
    translate({"summaryEvent": {"resourceChanges": {"same": 4}}}, summary, preview=True)
    assert not summary.has_changes


@pytest.mark.parametrize("op", ["delete", "replace", "create-replacement", "delete-replaced"])
def test_ending_a_machine_needs_consent(op):
    steps = [Planned(MACHINE, op, "skyinfra:local:Machine"), Planned(AGENT, op, "skyinfra:index:Agent")]
    assert unasked(steps, ()) == [MACHINE]
    assert unasked(steps, (MACHINE,)) == []
    assert unasked(steps, ("*",)) == []


def test_updating_a_machine_needs_none():
    assert unasked([Planned(MACHINE, "update", "skyinfra:local:Machine")], ()) == []


@pytest.mark.parametrize(
    ("diagnostics", "printed", "kind", "words"),
    [
        (["skyinfra[capacity at local]: asked for 99 CPUs, this host has 2"], "", "capacity", "asked for 99 CPUs"),
        (["1 error occurred:\n\t* skyinfra[quota]: 8 of 8 in use\n", "update failed"], "", "quota", "8 of 8 in use"),
        (["skyinfra[user at local]: the local cloud runs no images"], "", "user", "no images"),
        ([], "error: the stack is currently locked by 1 lock(s). Either wait", "engine", "another operation holds"),
        ([], "error: get stack secrets manager: incorrect passphrase", "engine", "passphrase file"),
        ([], "error: no stack named 'x' found", "engine", "no such stack"),
        (["Could not load plugin for skyinfra provider: no resource plugin"], "", "engine", "plugin cannot be loaded"),
        (["python inline source runtime error: boom"], "", "ours", "cluster program failed"),
        ([], "error: something nobody has seen", "engine", "something nobody has seen"),
        ([], "", "engine", "without a word"),
    ],
)
def test_recorded_diagnostics_are_sorted_into_kinds(diagnostics, printed, kind, words):
    found, message = classify("local", diagnostics, printed)
    assert found == kind
    assert words in message


def test_only_a_shortage_makes_waiting_pointless():
    assert is_shortage("local", ["skyinfra[capacity]: none"])
    assert not is_shortage("local", ["skyinfra[transient]: again"])
    assert not is_shortage("local", ["something else"])


def test_a_cloud_error_keeps_kind_place_and_words_through_text():
    found = parse(f"creating failed\n\t* {CloudError('spot_price', 'bid too low', 'us-east1-b')}\n")
    assert found is not None
    assert (found.kind, found.where, found.words) == ("spot_price", "us-east1-b", "bid too low")
    assert parse("skyinfra[nonsense]: x") is None
