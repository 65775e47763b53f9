"""AWS: machines from EC2, on-demand prices from the Price List, spot prices from EC2's history of this moment.

Left out: metal sizes, fractions of a GPU (their number is not a whole one anywhere else), machines that cannot run
x86 images. Zones are kept as zone *ids*, the same in every account; Local Zones are no part of an offer.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from skyinfra.catalog.offers import Offer
from skyinfra.model.accelerators import canonical_accelerator
from skyinfra.model.exceptions import CloudError, with_hint

__all__ = ["AwsPrices", "accelerator_of_type", "on_demand_price"]

_PRICING_REGION = "us-east-1"  # one of three places where the Price List can be asked; it answers for all regions
_FRACTIONS = ("g6f.", "gr6f.")
#: Names that EC2 gives, where they are not ours; the memory of one device in MiB tells same-named ones apart.
_NAMES = {
    ("A100", 81920): "A100-80GB",
    ("V100", 32768): "V100-32GB",
}
_PLAIN_NAMES = {"RTX PRO Server 6000": "RTX-PRO-6000", "RTX PRO Server 4500": "RTX-PRO-4500"}

_SECTIONS = (("GpuInfo", "Gpus"), ("NeuronInfo", "NeuronDevices"), ("InferenceAcceleratorInfo", "Accelerators"))

#: (service, region) -> a client with boto3's interface.
Clients = Callable[[str, str], Any]


class AwsPrices:
    """Offers of AWS."""

    def __init__(self, clients: Clients, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._clients = clients
        self._now = now

    @classmethod
    def from_environment(cls) -> AwsPrices:
        """With the credentials that boto3 finds. Raises `CloudError` when there are none."""
        import boto3  # type: ignore[import-not-found]

        session = boto3.Session()
        if session.get_credentials() is None:
            raise with_hint(CloudError("no credentials were found", "aws", "NoCredentials"), "aws configure")
        return cls(lambda service, region: session.client(service, region_name=region))

    def offers(self, regions: Sequence[str] | None = None) -> Iterator[Offer]:
        """Offers of some regions (None: all that the account has enabled). Raises `CloudError`."""
        try:
            for region in regions or self._enabled_regions():
                yield from self._region(region)
        except CloudError:
            raise
        except Exception as exc:
            # botocore's errors have no base that is importable without it; whatever it was, it came from AWS.
            code = getattr(exc, "response", {}).get("Error", {}).get("Code", type(exc).__name__)
            raise CloudError(str(exc), "aws", code) from exc

    def _enabled_regions(self) -> list[str]:
        answer = self._clients("ec2", _PRICING_REGION).describe_regions()
        return sorted(region["RegionName"] for region in answer["Regions"])

    def _region(self, region: str) -> Iterator[Offer]:
        ec2 = self._clients("ec2", region)
        zone_ids = _zone_ids(ec2)
        zones = _zones_of_types(ec2, set(zone_ids.values()))
        spot = self._spot_prices(ec2, zone_ids)
        prices = self._on_demand_prices(region)
        for page in ec2.get_paginator("describe_instance_types").paginate():
            for info in page["InstanceTypes"]:
                name = info["InstanceType"]
                if name in zones and _is_offered(info):
                    yield _offer(info, region, zones[name], prices.get(name), spot.get(name))

    def _on_demand_prices(self, region: str) -> dict[str, float]:
        wanted = {
            "regionCode": region,
            "operatingSystem": "Linux",
            "preInstalledSw": "NA",
            "tenancy": "Shared",
            "capacitystatus": "Used",
            "marketoption": "OnDemand",
        }
        filters = [{"Type": "TERM_MATCH", "Field": field, "Value": value} for field, value in wanted.items()]
        pages = self._clients("pricing", _PRICING_REGION).get_paginator("get_products")
        found: dict[str, float] = {}
        for page in pages.paginate(ServiceCode="AmazonEC2", Filters=filters):
            for text in page["PriceList"]:
                product = json.loads(text) if isinstance(text, str) else text
                price = on_demand_price(product)
                if price is not None:
                    found[product["product"]["attributes"]["instanceType"]] = price
        return found

    def _spot_prices(self, ec2: Any, zone_ids: dict[str, str]) -> dict[str, float]:
        """The lowest price of each type over the region's own zones, now."""
        history = ec2.get_paginator("describe_spot_price_history")
        found: dict[str, float] = {}
        for page in history.paginate(ProductDescriptions=["Linux/UNIX"], StartTime=self._now()):
            for entry in page["SpotPriceHistory"]:
                if entry["AvailabilityZone"] in zone_ids:
                    price = float(entry["SpotPrice"])
                    found[entry["InstanceType"]] = min(price, found.get(entry["InstanceType"], price))
        return found


def on_demand_price(product: dict[str, Any]) -> float | None:
    """USD per hour in a Price List product; None when it has none, or 0: zero stands for "not sold so"."""
    for term in product.get("terms", {}).get("OnDemand", {}).values():
        for dimension in term.get("priceDimensions", {}).values():
            price = float(dimension.get("pricePerUnit", {}).get("USD", 0))
            if dimension.get("unit", "Hrs") == "Hrs" and price > 0:
                return price
    return None


def accelerator_of_type(info: dict[str, Any]) -> tuple[str | None, float, float | None]:
    """(name, how many, GiB of each) in an instance type's description."""
    for section, devices in _SECTIONS:
        for device in info.get(section, {}).get(devices, ()):
            mib = device.get("MemoryInfo", {}).get("SizeInMiB")
            name = _NAMES.get((device["Name"], mib)) or _PLAIN_NAMES.get(device["Name"]) or device["Name"]
            return canonical_accelerator(name), float(device["Count"]), None if mib is None else round(mib / 1024, 1)
    return None, 0.0, None


def _is_offered(info: dict[str, Any]) -> bool:
    name = info["InstanceType"]
    runs_x86 = "x86_64" in info.get("ProcessorInfo", {}).get("SupportedArchitectures", ())
    return runs_x86 and not info.get("BareMetal") and ".metal" not in name and not name.startswith(_FRACTIONS)


def _offer(info: dict[str, Any], region: str, zones: tuple[str, ...], price: float | None, spot: float | None) -> Offer:
    accelerator, count, memory = accelerator_of_type(info)
    return Offer(
        "aws",
        info["InstanceType"],
        float(info["VCpuInfo"]["DefaultVCpus"]),
        info["MemoryInfo"]["SizeInMiB"] / 1024,
        accelerator,
        count,
        memory,
        region,
        zones,
        price,
        spot,
        _nvme_gb(info),
    )


def _nvme_gb(info: dict[str, Any]) -> float | None:
    """GB of the machine's own NVMe disks; None where it has none, which is "not what was asked for" all the same."""
    storage = info.get("InstanceStorageInfo")
    if storage is None or storage.get("NvmeSupport") == "unsupported":
        return None
    return float(storage["TotalSizeInGB"])


def _zone_ids(ec2: Any) -> dict[str, str]:
    """Zone name in this account -> zone id, Local and Wavelength Zones left out."""
    zones = ec2.describe_availability_zones()["AvailabilityZones"]
    return {z["ZoneName"]: z["ZoneId"] for z in zones if z.get("ZoneType", "availability-zone") == "availability-zone"}


def _zones_of_types(ec2: Any, known: set[str]) -> dict[str, tuple[str, ...]]:
    zones: dict[str, set[str]] = {}
    pages = ec2.get_paginator("describe_instance_type_offerings")
    for page in pages.paginate(LocationType="availability-zone-id"):
        for entry in page["InstanceTypeOfferings"]:
            if entry["Location"] in known:
                zones.setdefault(entry["InstanceType"], set()).add(entry["Location"])
    return {name: tuple(sorted(ids)) for name, ids in zones.items()}
