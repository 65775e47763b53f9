"""The provider's double refuses what it does not know: a silent pass would be its main danger."""

import grpc
import pytest
from google.protobuf import json_format, struct_pb2
from pulumi.runtime.proto import provider_pb2 as pb

from skyinfra.testing.aws.double.connection import Connection
from skyinfra.testing.aws.double.servicer import TYPES, Provider

KEY_PAIR = "urn:pulumi:s::p::aws:ec2/keyPair:KeyPair::k"
INSTANCE = "urn:pulumi:s::p::aws:ec2/instance:Instance::i"


class Aborted(Exception):
    pass


class Context:
    def peer(self) -> str:
        return "here"

    def abort(self, code: grpc.StatusCode, text: str) -> None:
        raise Aborted(f"{code.name}: {text}")


@pytest.fixture
def provider():
    provider = Provider("7.0.0")
    provider._by_peer["here"] = Connection({"region": "us-east-1", "skipCredentialsValidation": True})
    return provider


def struct(**values) -> struct_pb2.Struct:
    return json_format.ParseDict(values, struct_pb2.Struct())


def test_an_unknown_type_is_an_error(provider):
    with pytest.raises(Aborted, match=r"UNIMPLEMENTED: aws double: resource type aws:rds/instance:Instance"):
        provider.Check(pb.CheckRequest(urn="urn:pulumi:s::p::aws:rds/instance:Instance::x"), Context())


def test_an_unknown_function_is_an_error(provider):
    with pytest.raises(Aborted, match=r"UNIMPLEMENTED: aws double: function aws:ec2/getEips"):
        provider.Invoke(pb.InvokeRequest(tok="aws:ec2/getEips:getEips"), Context())


@pytest.mark.parametrize("token", TYPES)
def test_an_unknown_input_is_an_error(provider, token):
    asked = pb.CheckRequest(urn=f"urn:pulumi:s::p::{token}::x", news=struct(nobodyKnowsThis="1"))
    failed = {failure.property for failure in provider.Check(asked, Context()).failures}
    assert "nobodyKnowsThis" in failed
    assert set(TYPES[token].required) <= failed


def test_a_security_group_may_not_be_called_sg(provider):
    asked = pb.CheckRequest(urn="urn:pulumi:s::p::aws:ec2/securityGroup:SecurityGroup::sg-1", news=struct())
    assert [failure.property for failure in provider.Check(asked, Context()).failures] == ["name"]


def test_a_name_is_kept_once_it_is_given(provider):
    first = provider.Check(pb.CheckRequest(urn=KEY_PAIR, news=struct(publicKey="k"), randomSeed=b"1"), Context())
    again = provider.Check(
        pb.CheckRequest(urn=KEY_PAIR, news=struct(publicKey="k"), olds=first.inputs, randomSeed=b"2"), Context()
    )
    assert first.inputs["keyName"] == again.inputs["keyName"]
    assert first.inputs["keyName"].startswith("k-")


@pytest.mark.parametrize(
    ("old", "new", "changes", "replaces"),
    [
        ({"ami": "a"}, {"ami": "b"}, ["ami"], ["ami"]),
        ({"instanceType": "a"}, {"instanceType": "b"}, ["instanceType"], []),
        ({"instanceType": "a", "subnetId": "s"}, {"instanceType": "a"}, [], []),
        ({"rootBlockDevice": {"volumeSize": 8, "volumeType": "gp3"}}, {"rootBlockDevice": {"volumeSize": 8}}, [], []),
        ({"rootBlockDevice": {"volumeSize": 8}}, {"rootBlockDevice": {"volumeSize": 9}}, ["rootBlockDevice"], []),
        ({"tags": {"a": "1"}}, {"tags": {"a": "2"}}, ["tags"], []),
    ],
)
def test_what_is_a_change_and_what_a_replacement(provider, old, new, changes, replaces):
    asked = pb.DiffRequest(urn=INSTANCE, olds=struct(tagsAll=old.get("tags", {})), old_inputs=struct(**old))
    asked.news.CopyFrom(struct(**new))
    found = provider.Diff(asked, Context())
    assert (list(found.diffs), list(found.replaces)) == (changes, replaces)
