"""What AWS says, sorted: the provider's sentences as it prints them, with every recorded refusal in them."""

import pytest

from skyinfra.stacks.clouds.aws.errors import classify, zones_in
from skyinfra.testing.aws.refusals import REFUSALS

SENTENCE = (
    "creating EC2 Instance: operation error EC2: RunInstances, https response error StatusCode: {status}, "
    "RequestID: 11111111-2222-3333-4444-555555555555, api error {code}: {message}"
)
KINDS = {
    "capacity": "capacity",
    "no_such_type_here": "capacity",
    "quota": "quota",
    "spot_quota": "quota",
    "spot_price": "spot_price",
    "bad_credentials": "credentials",
    "unknown_key": "credentials",
    "expired": "credentials",
    "permission": "permission",
    "tag_policy": "permission",
    "no_image": "user",
    "no_key": "user",
    "throttled": "throttled",
    "region_off": "quota",
    "verification": "quota",
}


def said(name: str) -> str:
    refusal = REFUSALS[name]
    return SENTENCE.format(status=refusal.status, code=refusal.code, message=refusal.message)


@pytest.mark.parametrize("name", REFUSALS)
def test_every_recorded_refusal_has_its_kind_and_keeps_its_words(name):
    found = classify(said(name))
    assert found is not None
    kind, _, words = found
    assert kind == KINDS[name]
    assert words.startswith(f"{REFUSALS[name].code}: {REFUSALS[name].message[:30]}")


def test_a_capacity_error_says_where():
    assert classify(said("capacity"))[1] == "us-east-1a"
    assert zones_in("in us-gov-west-1b or ap-southeast-2c") == ["us-gov-west-1b", "ap-southeast-2c"]


def test_what_only_aws_can_read_is_left_out():
    assert "4MxZ1" not in classify(said("permission"))[2]
    assert "ec2:RunInstances" in classify(said("permission"))[2]


def test_of_several_errors_the_one_that_needs_the_user_counts():
    assert classify(f"{said('capacity')}\n{said('no_image')}")[0] == "user"
    assert classify(f"{said('throttled')}\n{said('capacity')}")[0] == "capacity"


def test_an_instance_that_died_at_birth_is_told_by_its_reason():
    text = (
        "waiting for EC2 Instance (i-0a) create: unexpected state 'terminated', wanted target 'running'. "
        "last error: Server.InsufficientInstanceCapacity: Insufficient capacity."
    )
    assert classify(text)[0] == "capacity"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("error: No valid credential sources found. Please see ...", "credentials"),
        ("failed to refresh cached credentials, no EC2 IMDS role found", "credentials"),
        ("dial tcp: lookup ec2.us-east-1.amazonaws.com: no such host", "transient"),
        ('Could not connect to the endpoint URL: "http://127.0.0.1:1/"', "transient"),
    ],
)
def test_failures_before_any_answer(text, kind):
    assert classify(text)[0] == kind


def test_what_is_not_from_aws_is_left_to_others():
    assert classify("error: stack is currently locked by 1 lock(s)") is None
    assert classify("api error NobodyRecordedThis: hm") is None
