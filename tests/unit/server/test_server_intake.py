"""What is stored of a request's body: everything sealed, a copy without values for display."""

import json

import pytest

from skyinfra.server import intake
from skyinfra.server.answers import HttpError
from skyinfra.server.identity import Principal

ME = Principal("u", "Me@host")
DIGEST = "a" * 64


def launch(**body):
    return intake.parse("launch", json.dumps({"task": {}, **body}).encode())


def test_values_of_envs_and_secrets_are_in_no_copy_for_display():
    task = {"run": "x", "envs": {"A": "value-a"}, "secrets": {"B": "value-b"}}
    body = launch(task=task, entrypoint="sky launch --env A=value-a --secret=B='value-b c' -n value-b")
    new = intake.incoming("launch", body, ME, "default", None)
    shown = json.dumps(new.display) + new.entrypoint
    assert "value-a" not in shown
    assert "value-b" not in shown
    assert new.display["task"]["envs"] == {"A": "<redacted>"}
    assert new.body["task"]["envs"] == {"A": "value-a"}


def test_the_fingerprint_ignores_who_typed_what():
    one = intake.incoming("launch", launch(entrypoint="a", user="x"), ME, "default", "k")
    two = intake.incoming("launch", launch(entrypoint="b", user="y"), ME, "default", "k")
    other = intake.incoming("launch", launch(dryrun=True), ME, "default", "k")
    assert one.fingerprint == two.fingerprint != other.fingerprint
    assert one.key == "k"


def test_a_made_up_name_is_legal_and_does_not_change_the_fingerprint():
    one, two = (intake.incoming("launch", launch(), ME, "default", "k") for _ in range(2))
    assert one.cluster_name.startswith("sky-")
    assert one.cluster_name.endswith("-mehost")
    assert one.fingerprint == two.fingerprint


def test_digests_of_a_body_are_kept_for_the_collector():
    new = intake.incoming(
        "launch", launch(blobs={"~/sky_workdir": {"digest": DIGEST, "kind": "dir"}}), ME, "default", None
    )
    assert new.blobs == (DIGEST,)


@pytest.mark.parametrize("raw", [b"[]", b"3", b"\xff", b'{"task": []}', b'{"task": {}, "optimize_target": "SPEED"}'])
def test_a_bad_body_is_a_400_on_one_line(raw):
    with pytest.raises(HttpError) as caught:
        intake.parse("launch", raw)
    assert caught.value.status == 400
    assert "\n" not in str(caught.value)


def test_unknown_keys_are_ignored_and_defaults_filled_in():
    body = launch(something_new=1)
    assert "something_new" not in body
    assert body["no_setup"] is False
