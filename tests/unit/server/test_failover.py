"""What a failed attempt rules out, and what is told when nothing is left."""

import dataclasses

import pytest

from skyinfra.catalog.local import Candidate
from skyinfra.server.fleet.failover import (
    Failure,
    block_of,
    failures_of,
    shortage_block,
    shortage_place,
    shortage_what,
    told,
)

P4D = Candidate("aws", "us-east-1", "p4d.24xlarge", 96, 1152, ("A100", 8), 256, True, 9.8, "us-east-1a")
M6I = Candidate("aws", "us-east-1", "m6i.2xlarge", 8, 32, None, 256, False, 0.38)


def resources(candidate, **other):
    from skyinfra.model.resources import Resources

    one = dataclasses.replace(candidate, **other)
    gpus = {one.gpus[0]: one.gpus[1]} if one.gpus else None
    return Resources(
        cloud=one.cloud, region=one.region, zone=one.zone, instance_type=one.instance_type, accelerators=gpus
    )


@pytest.mark.parametrize(
    ("failed", "kind", "other", "blocked"),
    [
        (P4D, "capacity", {}, True),
        (P4D, "capacity", {"zone": "us-east-1b"}, False),
        (P4D, "spot_price", {"zone": "us-east-1b"}, False),
        (P4D, "quota", {"zone": "us-east-1b"}, True),
        (P4D, "quota", {"region": "us-east-2", "zone": "us-east-2a"}, False),
        (P4D, "credentials", {"region": "us-east-2", "zone": None, "gpus": None, "instance_type": "m6i.large"}, True),
        (M6I, "capacity", {}, True),
        (M6I, "capacity", {"zone": "us-east-1c"}, True),
        (M6I, "capacity", {"instance_type": "m7i.2xlarge"}, False),
        (M6I, "permission", {"region": "eu-west-1"}, True),
    ],
)
def test_how_far_a_failure_reaches(failed, kind, other, blocked):
    block = block_of(Failure(failed, kind, "no", 0.0))
    assert resources(failed, **other).should_be_blocked_by(block) is blocked


def test_a_remembered_shortage_is_the_block_that_its_failure_was():
    for one in (P4D, M6I):
        place, what = shortage_place(one.region, one.zone), shortage_what(one.gpus, one.instance_type)
        block = shortage_block(one.cloud, place, what)
        assert resources(one).should_be_blocked_by(block)
        assert not resources(one, region="us-east-2", zone="us-east-2a").should_be_blocked_by(block)


def test_failures_are_read_from_a_launch_s_results_by_round():
    def place(round_number, candidate):
        return {"cluster_id": "c", "candidate": candidate.to_json(), "round": round_number}

    failed = {"failed": {"kind": "capacity", "message": "full", "leftovers": [], "at": 5.0}}
    prior = {
        "place#0": place(0, P4D), "provision#0": failed, "place#1": place(0, M6I), "provision#1": failed,
        "place#2": place(1, P4D), "provision#2": failed, "place#3": place(1, M6I),
    }  # fmt: skip
    assert [one.candidate for one in failures_of(prior)] == [P4D, M6I, P4D]
    assert failures_of(prior, 1) == [Failure(P4D, "capacity", "full", 5.0)]


def test_the_history_is_a_table_with_the_provider_s_words_and_what_helps():
    lines = told("c", [Failure(P4D, "capacity", "InsufficientInstanceCapacity: none", 0.0), Failure(M6I, "x", "?", 0)])
    assert lines[0] == "No place had room for cluster 'c':"
    assert lines[1].split() == ["WHERE", "WHAT", "WHEN", "WHY", "WHAT", "HELPS"]
    assert lines[2].startswith("aws/us-east-1/us-east-1a  p4d.24xlarge (A100:8) spot  ")
    assert "InsufficientInstanceCapacity: none  another zone, region or machine type" in lines[2]
    assert lines[3].startswith("aws/us-east-1 ")
    assert lines[3].endswith("-")
