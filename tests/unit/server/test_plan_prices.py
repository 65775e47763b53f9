"""What a plan says an hour costs: nothing on machines that are the user's own, and a price for what is bought."""

import dataclasses

import pytest

from skyinfra.model.spec import ClusterSpec, Slot
from skyinfra.server.fleet.plans import Planner

SPEC = ClusterSpec("s", "default", "u", "c", "c-000000", "local", (Slot(0), Slot(1)))


@pytest.mark.parametrize(
    ("cloud", "region", "kind", "hourly"),
    [
        ("local", None, "local", 0.0),
        ("ssh", "rack1", "8CPU-32GB-L4x2", 0.0),
        ("aws", "us-east-1", "no.such-type", None),
    ],
)
def test_own_machines_cost_nothing_and_an_unknown_price_is_not_zero(cloud, region, kind, hourly):
    slots = tuple(dataclasses.replace(slot, instance_type=kind) for slot in SPEC.slots)
    spec = dataclasses.replace(SPEC, cloud=cloud, region=region, slots=slots)
    assert Planner(None)._hourly(spec) == hourly


def test_what_is_bought_costs_each_node():
    slots = tuple(dataclasses.replace(slot, instance_type="m6i.2xlarge") for slot in SPEC.slots)
    spec = dataclasses.replace(SPEC, cloud="aws", region="us-east-1", slots=slots)
    assert Planner(None)._hourly(spec) == pytest.approx(2 * 0.384)
