"""Where a task may go: the enabled clouds' offers, this host live among them, and why a cloud is out."""

import asyncio
from pathlib import Path
from types import SimpleNamespace

import pytest

from skyinfra.catalog.local import Candidate
from skyinfra.catalog.offers import Offer
from skyinfra.model.config import Config
from skyinfra.model.exceptions import NoCloudAccessError, ResourcesUnavailableError
from skyinfra.model.home import Home
from skyinfra.server.fleet.clouds import Clouds
from skyinfra.server.fleet.placement import Placement
from skyinfra.server.fleet.ports import Standing


def cloud(name, *machines, enabled=True):
    """A cloud that offers what (vcpus, memory, accelerator, count) say."""
    offers = [
        Offer(name, name, cpus, memory, gpu, count, None, f"{name}-1", (), price=0.0, spot_price=0.0)
        for cpus, memory, gpu, count in machines
    ]
    reason = f"{name} has 8 CPUs, 32 GB of memory, T4:2" if enabled else "no credentials"
    return SimpleNamespace(
        name=name,
        standing=lambda: Standing(enabled, reason),
        check=lambda: Standing(enabled, reason),
        machines=lambda: offers,
        observe=lambda stack=None, regions=(): [],
    )


HOST = cloud("local", (8, 32, None, 0), (8, 32, "T4", 2))


class NoShortage:
    async def read(self, query):
        return set()


@pytest.fixture
def rank_on(tmp_path: Path):
    def rank(clouds, resources, **config):
        placement = Placement(NoShortage(), Clouds(Home(tmp_path), {one.name: one for one in clouds}))
        return asyncio.run(placement.rank({"resources": resources}, Config(config)))

    return rank


@pytest.fixture
def rank(rank_on):
    return lambda resources, **config: rank_on([HOST], resources, **config)


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
    assert "local has 8 CPUs, 32 GB of memory, T4:2" in caught.value.hint


def test_alternatives_keep_their_order_and_those_elsewhere_are_passed_over(rank):
    ordered = [{"infra": "aws", "accelerators": "A100"}, {"accelerators": "T4"}, {"cpus": 2}]
    places, table = rank({"ordered": ordered})
    assert [(place.gpus, place.cpus) for place in places] == [(("T4", 1), 8), (None, 2)]
    lines = table.splitlines()
    assert lines[0].split() == ["INFRA", "INSTANCE", "vCPUs", "Mem(GB)", "GPUS", "COST", "($)", "CHOSEN"]
    assert lines[1].split() == ["Local", "(local-1)", "local", "8", "32", "T4:1", "0.00", "✔"]


@pytest.mark.parametrize("resources", [{"infra": "aws"}, {"any_of": [{"infra": "aws"}, {"infra": "gcp/us-central1"}]}])
def test_a_cloud_that_is_not_enabled_is_named_with_those_that_are(rank, resources):
    with pytest.raises(NoCloudAccessError, match=r"asks for aws.*not enabled; enabled: local"):
        rank(resources)


def test_the_server_s_configuration_may_allow_no_cloud_that_is_there(rank):
    assert rank({}, allowed_clouds=["Local", "aws"])[0]
    with pytest.raises(NoCloudAccessError, match="allowed_clouds names aws"):
        rank({}, allowed_clouds=["aws"])


POOL = cloud("ssh", (16, 64, None, 0))


def test_the_host_is_used_when_named_or_when_there_is_no_other(rank_on):
    assert [place.cloud for place in rank_on([HOST, POOL], {})[0]] == ["ssh"]
    assert [place.cloud for place in rank_on([HOST, POOL], {"infra": "local"})[0]] == ["local"]
    off = cloud("ssh", (16, 64, None, 0), enabled=False)
    assert [place.cloud for place in rank_on([HOST, off], {})[0]] == ["local"]
    assert [place.cloud for place in rank_on([HOST, POOL], {}, allowed_clouds=["local"])[0]] == ["local"]


def test_a_named_cloud_that_cannot_be_used_says_why(rank_on):
    off = cloud("ssh", enabled=False)
    with pytest.raises(NoCloudAccessError, match=r"asks for ssh.*enabled: local") as caught:
        rank_on([HOST, off], {"infra": "ssh"})
    assert "ssh: no credentials" in caught.value.hint
    with pytest.raises(NoCloudAccessError, match="no cloud is enabled: ssh: no credentials"):
        rank_on([off], {})
