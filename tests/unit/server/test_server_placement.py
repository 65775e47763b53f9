"""Where a task may go: the enabled clouds' offers, this host live among them, and why a cloud is out."""

import asyncio
from pathlib import Path

import pytest

from skyinfra.catalog.local import Candidate
from skyinfra.model.config import Config
from skyinfra.model.exceptions import NoCloudAccessError, ResourcesUnavailableError
from skyinfra.model.home import Home
from skyinfra.server.fleet.clouds import Clouds
from skyinfra.server.fleet.placement import Placement


class Host:
    def capacity(self):
        return {"cpus": 8, "memory_gb": 32, "gpus": {"T4": 2}}

    def observe(self, stack=None):
        return []


class NoShortage:
    async def read(self, query):
        return set()


@pytest.fixture
def rank(tmp_path: Path):
    placement = Placement(NoShortage(), Clouds(Home(tmp_path), Host()))  # type: ignore[arg-type]
    return lambda resources, **config: asyncio.run(placement.rank({"resources": resources}, Config(config)))


@pytest.mark.parametrize(
    ("resources", "cpus", "memory_gb", "gpus"),
    [
        ({}, 8, 32, None),
        ({"cpus": 2, "memory": "4+"}, 2, 4, None),
        ({"accelerators": "T4:0.5"}, 8, 32, ("T4", 1)),
        ({"accelerators": "t4:2", "cpus": "4+"}, 4, 32, ("T4", 2)),
    ],
)
def test_a_node_gets_the_whole_host_unless_it_says_less(rank, resources, cpus, memory_gb, gpus):
    (place,), _ = rank(resources)
    assert (place.cloud, place.cpus, place.memory_gb, place.gpus) == ("local", cpus, memory_gb, gpus)
    assert Candidate.from_json(place.to_json()) == place


@pytest.mark.parametrize(
    ("resources", "says"),
    [
        ({"cpus": "9+"}, "no machine with 9+ vCPUs; the nearest has 8"),
        ({"memory": "33"}, "the nearest has 32"),
        ({"accelerators": "T4:3"}, "no T4:3; the largest is T4:2"),
        ({"accelerators": "H100"}, "local: no H100"),
    ],
)
def test_what_the_host_cannot_be_is_refused_with_what_it_is(rank, resources, says):
    with pytest.raises(ResourcesUnavailableError) as caught:
        rank(resources)
    assert says in str(caught.value)
    assert "this host has 8 CPUs, 32 GB of memory, T4:2" in caught.value.hint


def test_alternatives_keep_their_order_and_those_elsewhere_are_passed_over(rank):
    ordered = [{"infra": "aws", "accelerators": "A100"}, {"accelerators": "T4"}, {"cpus": 2}]
    places, table = rank({"ordered": ordered})
    assert [(place.gpus, place.cpus) for place in places] == [(("T4", 1), 8), (None, 2)]
    lines = table.splitlines()
    assert lines[0].split() == ["INFRA", "INSTANCE", "vCPUs", "Mem(GB)", "GPUS", "COST", "($)", "CHOSEN"]
    assert lines[1].split() == ["Local", "(local)", "local", "8", "32", "T4:1", "0.00", "✔"]


@pytest.mark.parametrize("resources", [{"infra": "aws"}, {"any_of": [{"infra": "aws"}, {"infra": "gcp/us-central1"}]}])
def test_a_cloud_that_is_not_enabled_is_named_with_those_that_are(rank, resources):
    with pytest.raises(NoCloudAccessError, match=r"asks for aws.*not enabled; enabled: local"):
        rank(resources)


def test_the_server_s_configuration_may_allow_no_cloud_that_is_there(rank):
    assert rank({}, allowed_clouds=["Local", "aws"])[0]
    with pytest.raises(NoCloudAccessError, match="allowed_clouds names aws"):
        rank({}, allowed_clouds=["aws"])
