"""The provider's gRPC face: kinds survive as text, nothing made is missing, a cancel reaches only its sender."""

from __future__ import annotations

import grpc
import pytest
from google.protobuf import struct_pb2
from pulumi.runtime.proto import provider_pb2, status_pb2

from skyinfra.stacks.clouds.failures import CloudError
from skyinfra.stacks.provider.agent import Agent
from skyinfra.stacks.provider.calls import UNKNOWN, DiffResult, changed, plain
from skyinfra.stacks.provider.local_machine import LocalMachine
from skyinfra.stacks.provider.servicer import Servicer

URN = "urn:pulumi:c::skyinfra::skyinfra:index:Cluster$test:index:Thing::c-0"


class Aborted(Exception):
    pass


class Context:
    def __init__(self, peer="ipv4:127.0.0.1:1"):
        self._peer = peer
        self.status = None

    def peer(self):
        return self._peer

    def abort(self, code, details):
        raise Aborted(details)

    def abort_with_status(self, status):
        self.status = status
        raise Aborted(status.details)


class Thing:
    token = "test:index:Thing"

    def __init__(self, fail=None, made_first=True):
        self.fail = fail
        self.made_first = made_first
        self.cancelled = None

    def check(self, inputs):
        return {}

    def diff(self, olds, news):
        return DiffResult()

    def preview(self, inputs, olds):
        return {**inputs, "out": UNKNOWN}

    def create(self, call, inputs):
        if self.made_first:
            call.made("thing-1", {**inputs, "partial": True})
        self.cancelled = call.cancelled
        if self.fail:
            raise self.fail
        return "thing-1", {**inputs, "done": True}

    def read(self, identifier, outputs):
        return None

    def update(self, call, identifier, inputs, olds):
        raise CloudError("transient", "later")

    def delete(self, call, identifier, outputs):
        raise CloudError("transient", "still there")


def struct(**values):
    message = struct_pb2.Struct()
    message.update(values)
    return message


def create(servicer, context, preview=False):
    request = provider_pb2.CreateRequest(urn=URN, properties=struct(size=2), preview=preview)
    return servicer.Create(request, context)


def init_failure(context):
    [(key, value)] = context.status.trailing_metadata
    assert key == "grpc-status-details-bin"
    status = status_pb2.Status.FromString(value)
    detail = provider_pb2.ErrorResourceInitFailed()
    assert status.details[0].Unpack(detail)
    return detail


@pytest.mark.parametrize("error", [CloudError("capacity", "none"), RuntimeError("boom")])
def test_a_failure_after_the_first_side_effect_names_what_was_made(error):
    context = Context()
    with pytest.raises(Aborted):
        create(Servicer([Thing(error)]), context)
    detail = init_failure(context)
    assert (detail.id, dict(detail.properties)["partial"]) == ("thing-1", True)
    assert "skyinfra[" in detail.reasons[0]
    assert context.status.code == grpc.StatusCode.UNKNOWN


def test_a_failure_before_it_leaves_nothing_in_the_state():
    context = Context()
    with pytest.raises(Aborted, match="capacity"):
        create(Servicer([Thing(CloudError("capacity", "none"), made_first=False)]), context)
    assert context.status.trailing_metadata == ()


def test_a_preview_makes_nothing():
    thing = Thing(RuntimeError("must not be called"))
    response = create(Servicer([thing]), Context(), preview=True)
    assert dict(response.properties)["out"] == UNKNOWN


def test_a_cancel_reaches_only_the_engine_that_sent_it():
    first, second = Thing(), Thing()
    servicer = Servicer([first])
    create(servicer, Context("peer-1"))
    of_first = first.cancelled
    create(servicer, Context("peer-2"))
    of_second = first.cancelled
    assert second.cancelled is None
    servicer.Cancel(None, Context("peer-1"))
    assert of_first()
    assert not of_second()
    servicer.cancel_all()
    assert of_second()


def test_reading_what_is_gone_gives_no_id_and_an_unknown_type_is_refused():
    servicer = Servicer([Thing()])
    assert servicer.Read(provider_pb2.ReadRequest(urn=URN, id="x"), Context()).id == ""
    other = provider_pb2.ReadRequest(urn=URN.replace("Thing", "Other"), id="x")
    with pytest.raises(Aborted, match="no resource type"):
        servicer.Read(other, Context())


def test_a_failed_update_or_delete_keeps_its_kind():
    servicer = Servicer([Thing()])
    with pytest.raises(Aborted, match=r"skyinfra\[transient\]: later"):
        servicer.Update(provider_pb2.UpdateRequest(urn=URN, id="x"), Context())
    with pytest.raises(Aborted, match=r"skyinfra\[transient\]: still there"):
        servicer.Delete(provider_pb2.DeleteRequest(urn=URN, id="x"), Context())


def test_numbers_are_compared_as_json_has_them():
    assert plain({"a": 2.0, "b": None, "c": [1.0, 1.5]}) == {"a": 2, "c": [1, 1.5]}
    assert changed({"a": 2.0}, {"a": 2, "b": None}, ("a", "b")) == ()
    assert changed({"a": 2}, {"a": UNKNOWN}, ("a",)) == ("a",)


def test_a_machine_is_replaced_for_what_cannot_change_and_updated_for_the_rest(home):
    olds = {"cluster": "c", "slot": 0.0, "incarnation": 0.0, "cpus": 1.0, "power": "running"}
    machine = LocalMachine(home)
    assert machine.diff(olds, dict(olds)).changed == ()
    for name, value in {"incarnation": 1, "gpus": ["H100", 1], "image": "x"}.items():
        diff = machine.diff(olds, {**olds, name: value})
        assert (diff.replaces, diff.delete_before_replace) == ((name,), True)
    for name, value in {"cpus": 2, "power": "stopped", "memory_gb": 3}.items():
        assert machine.diff(olds, {**olds, name: value}) == DiffResult((name,), (), True)


def test_an_agent_is_restarted_in_place_and_follows_its_machine():
    agent = Agent({})
    olds = {"machine_id": "m", "slot": 0, "version": "1", "boot": 0, "generation": 0, "cloud": "local"}
    for name, value in {"version": "2", "boot": 1, "generation": 1}.items():
        assert agent.diff(olds, {**olds, name: value}) == DiffResult((name,))
    for machine_id in ("other", UNKNOWN):
        assert agent.diff(olds, {**olds, "machine_id": machine_id}).replaces == ("machine_id",)
    assert agent.read("m", olds) == olds
    assert "version" in agent.check({**olds, "version": ""})
