"""AWS against recorded answers, and EC2's part against moto where it is installed (it has no price list by term)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from skyinfra.catalog.offers import Offer
from skyinfra.catalog.refresh.aws import AwsPrices, accelerator_of_type, on_demand_price
from skyinfra.model.exceptions import CloudError

NOW = datetime(2026, 11, 1, tzinfo=UTC)


def product(name: str, usd: str, unit: str = "Hrs") -> dict[str, Any]:
    return {
        "product": {"attributes": {"instanceType": name}},
        "terms": {"OnDemand": {"T.1": {"priceDimensions": {"T.1.D": {"unit": unit, "pricePerUnit": {"USD": usd}}}}}},
    }


def described(name: str, cpus: int, gib: int, arch: str = "x86_64", **more: Any) -> dict[str, Any]:
    return {
        "InstanceType": name,
        "VCpuInfo": {"DefaultVCpus": cpus},
        "MemoryInfo": {"SizeInMiB": gib * 1024},
        "ProcessorInfo": {"SupportedArchitectures": [arch]},
        "BareMetal": False,
        **more,
    }


def gpus(name: str, count: int, mib: int) -> dict[str, Any]:
    return {"Gpus": [{"Name": name, "Count": count, "MemoryInfo": {"SizeInMiB": mib}}]}


NVME = {"TotalSizeInGB": 8000, "NvmeSupport": "required"}
TYPES = [
    described("m6i.2xlarge", 8, 32),
    described("p4de.24xlarge", 96, 1152, GpuInfo=gpus("A100", 8, 81920), InstanceStorageInfo=NVME),
    described("trn2.48xlarge", 192, 2048, NeuronInfo={"NeuronDevices": [{"Name": "Trainium2", "Count": 16}]}),
    described("m7g.large", 2, 8, arch="arm64"),
    described("m6i.metal", 128, 512, BareMetal=True),
    described("g6f.large", 2, 8, GpuInfo=gpus("L4", 1, 2861)),
    described("m1.unsold", 2, 8),
]


class Recorded:
    """A client that answers from recordings, as boto3's do: pages by operation, and what was asked."""

    def __init__(self, pages: dict[str, list[dict[str, Any]]]) -> None:
        self.pages = pages
        self.asked: dict[str, dict[str, Any]] = {}

    def get_paginator(self, operation: str) -> Any:
        recorded = self

        class Paginator:
            def paginate(self, **asked: Any) -> Iterator[dict[str, Any]]:
                recorded.asked[operation] = asked
                return iter(recorded.pages[operation])

        return Paginator()

    def describe_availability_zones(self) -> dict[str, Any]:
        return {
            "AvailabilityZones": [
                {"ZoneName": "us-east-1a", "ZoneId": "use1-az4", "ZoneType": "availability-zone"},
                {"ZoneName": "us-east-1b", "ZoneId": "use1-az6", "ZoneType": "availability-zone"},
                {"ZoneName": "us-east-1-bos-1a", "ZoneId": "use1-bos1-az1", "ZoneType": "local-zone"},
            ]
        }

    def describe_regions(self) -> dict[str, Any]:
        return {"Regions": [{"RegionName": "us-east-1"}]}


@pytest.fixture
def ec2() -> Recorded:
    def spot(name: str, zone: str, usd: str) -> dict[str, Any]:
        return {"InstanceType": name, "AvailabilityZone": zone, "SpotPrice": usd, "Timestamp": NOW}

    def offering(name: str, zone: str) -> dict[str, str]:
        return {"InstanceType": name, "Location": zone}

    named = [t["InstanceType"] for t in TYPES if t["InstanceType"] != "m1.unsold"]
    return Recorded(
        {
            "describe_instance_types": [{"InstanceTypes": TYPES[:3]}, {"InstanceTypes": TYPES[3:]}],
            "describe_instance_type_offerings": [
                {"InstanceTypeOfferings": [offering(name, "use1-az6") for name in named]},
                {"InstanceTypeOfferings": [offering("m6i.2xlarge", z) for z in ("use1-az4", "use1-bos1-az1")]},
            ],
            "describe_spot_price_history": [
                {
                    "SpotPriceHistory": [
                        spot("m6i.2xlarge", "us-east-1a", "0.20"),
                        spot("m6i.2xlarge", "us-east-1b", "0.15"),
                    ]
                },
                {"SpotPriceHistory": [spot("m6i.2xlarge", "us-east-1-bos-1a", "0.01")]},
            ],
        }
    )


@pytest.fixture
def pricing() -> Recorded:
    listed = [product("m6i.2xlarge", "0.3840000000"), product("p4de.24xlarge", "27.4470500000"), product("x", "0.0")]
    return Recorded({"get_products": [{"PriceList": [json.dumps(p) for p in listed]}]})


def test_machines_prices_and_zones_meet_in_offers(ec2: Recorded, pricing: Recorded) -> None:
    aws = AwsPrices(lambda service, region: ec2 if service == "ec2" else pricing, now=lambda: NOW)
    region = "us-east-1"
    assert list(aws.offers()) == [
        Offer("aws", "m6i.2xlarge", 8, 32, None, 0, None, region, ("use1-az4", "use1-az6"), 0.384, 0.15),
        Offer("aws", "p4de.24xlarge", 96, 1152, "A100-80GB", 8, 80.0, region, ("use1-az6",), 27.44705, None, 8000),
        Offer("aws", "trn2.48xlarge", 192, 2048, "Trainium2", 16, None, region, ("use1-az6",), None, None),
    ]
    asked = {f["Field"]: f["Value"] for f in pricing.asked["get_products"]["Filters"]}
    assert asked["regionCode"] == region
    assert (asked["tenancy"], asked["capacitystatus"], asked["operatingSystem"]) == ("Shared", "Used", "Linux")
    assert ec2.asked["describe_instance_type_offerings"] == {"LocationType": "availability-zone-id"}
    assert ec2.asked["describe_spot_price_history"] == {"ProductDescriptions": ["Linux/UNIX"], "StartTime": NOW}


@pytest.mark.parametrize(
    ("section", "named"),
    [
        (gpus("V100", 8, 32768), ("V100-32GB", 8, 32.0)),
        (gpus("V100", 1, 16384), ("V100", 1, 16.0)),
        (gpus("A10G", 1, 22888), ("A10G", 1, 22.4)),
        (gpus("RTX PRO Server 6000", 2, 98304), ("RTX-PRO-6000", 2, 96.0)),
    ],
)
def test_gpus_are_told_apart_by_their_memory(section: dict[str, Any], named: tuple[str, float, float]) -> None:
    assert accelerator_of_type({"GpuInfo": section}) == named


def test_a_price_of_zero_or_by_another_unit_is_no_price() -> None:
    assert on_demand_price(product("x", "0.0000000000")) is None
    assert on_demand_price(product("x", "3.0", unit="Quantity")) is None
    assert on_demand_price({"product": {}}) is None


def test_what_aws_refuses_comes_back_as_a_cloud_error_with_its_code() -> None:
    class Refused(Exception):
        response = {"Error": {"Code": "UnauthorizedOperation"}}  # noqa: RUF012 - as botocore's ClientError has it

    def clients(service: str, region: str) -> Any:
        raise Refused("You are not authorized")

    with pytest.raises(CloudError, match="You are not authorized") as caught:
        list(AwsPrices(clients).offers(["us-east-1"]))
    assert caught.value.error_type == "UnauthorizedOperation"


@pytest.mark.slow
def test_ec2s_own_shapes_are_understood(pricing: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    moto = pytest.importorskip("moto", reason="moto is not installed: EC2's shapes are only held against recordings")
    boto3 = pytest.importorskip("boto3")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with moto.mock_aws():
        session = boto3.Session()

        def clients(service: str, region: str) -> Any:
            return pricing if service == "pricing" else session.client(service, region_name=region)

        found = {o.instance_type: o for o in AwsPrices(clients).offers(["us-east-1"])}
    assert len(found) > 200
    p4de, m6i = found["p4de.24xlarge"], found["m6i.2xlarge"]
    assert (p4de.accelerator, p4de.accelerator_count, p4de.accelerator_memory_gib) == ("A100-80GB", 8, 80.0)
    assert (p4de.price, m6i.vcpus, m6i.memory_gib) == (27.44705, 8, 32)
    assert all(zone.startswith("use1-az") for zone in m6i.zones)
    assert not any(".metal" in name or name.startswith(("m7g.", "g6f.")) for name in found)
