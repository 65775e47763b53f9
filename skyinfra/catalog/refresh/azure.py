"""Azure: prices from the Retail Prices API (open to all), specifications from Resource SKUs (need a subscription).

Without a subscription the specifications of the catalog in use are kept and only prices move: sizes that it does not
know are then left out, for a price without vCPUs is no offer.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from skyinfra.catalog.offers import Offer
from skyinfra.catalog.refresh.http import JsonApi
from skyinfra.model.accelerators import ACCELERATORS

__all__ = ["AzurePrices", "accelerator_of_size"]

_PRICES = "https://prices.azure.com"
_MANAGEMENT = "https://management.azure.com"
_SKUS_VERSION = "2021-07-01"

#: GPU sizes by their name: Resource SKUs tell how many GPUs a size has, never which.
_GPU_SIZES: Sequence[tuple[str, str]] = (
    (r"^Standard_NC\d+ads_A100_v4$", "A100-80GB"),
    (r"^Standard_ND\d+amsr_A100_v4$", "A100-80GB"),
    (r"^Standard_ND\d+asr_v4$", "A100"),
    (r"^Standard_NC\d+a\w*_H100_v5$", "H100-NVL"),
    (r"^Standard_ND\d+isr?_H100_v5$", "H100"),
    (r"^Standard_ND\d+isr?_H200_v5$", "H200"),
    (r"^Standard_ND\d+isr?_MI300X_v5$", "MI300X"),
    (r"^Standard_ND\d+\w*_GB200_v6$", "GB200"),
    (r"^Standard_NC\d+as_T4_v3$", "T4"),
    (r"^Standard_NV\d+ad?m?s_A10_v5$", "A10"),
    (r"^Standard_NC\d+r?s_v3$", "V100"),
    (r"^Standard_ND40rs_v2$", "V100-32GB"),
)
_A10_FRACTION = {6: 0.167, 12: 0.333, 18: 0.5}


@dataclass(frozen=True, slots=True)
class _Size:
    vcpus: float | None
    memory_gib: float | None
    accelerator: str | None
    count: float
    accelerator_memory_gib: float | None
    zones: tuple[str, ...]


class AzurePrices:
    """Offers of Azure. `management` None = no subscription: the specifications of `known` are used."""

    def __init__(
        self, prices: JsonApi, management: JsonApi | None, subscription: str | None, known: Iterable[Offer]
    ) -> None:
        self._prices = prices
        self._management = management
        self._subscription = subscription
        self._known = list(known)

    @classmethod
    def from_environment(cls, known: Iterable[Offer]) -> AzurePrices:
        """With the subscription in `AZURE_SUBSCRIPTION_ID` and the credentials azure-identity finds, if any."""
        subscription = os.environ.get("AZURE_SUBSCRIPTION_ID")
        management = JsonApi("azure", _MANAGEMENT, _token()) if subscription else None
        return cls(JsonApi("azure", _PRICES), management, subscription, known)

    def offers(self, regions: Sequence[str] | None = None) -> Iterator[Offer]:
        """Offers of some regions (None: those of the catalog in use). Raises `CloudError`."""
        for region in regions or sorted({offer.region for offer in self._known}):
            sizes = self._sizes(region)
            for name, (price, spot) in sorted(self._region_prices(region).items()):
                size = sizes.get(name)
                if size is not None:
                    yield _offer(name, size, region, price, spot)

    def _region_prices(self, region: str) -> dict[str, tuple[float | None, float | None]]:
        """(on demand, spot) of each size; the lowest where a size is listed more than once."""
        wanted = ("serviceName eq 'Virtual Machines'", f"armRegionName eq '{region}'", "priceType eq 'Consumption'")
        query = {"$filter": " and ".join(wanted)}
        found: dict[str, tuple[float | None, float | None]] = {}
        page = self._prices.get("/api/retail/prices", query)
        while True:
            for item in page.get("Items", ()):
                if _is_linux_hour(item):
                    price, spot = found.get(item["armSkuName"], (None, None))
                    if "spot" in item["skuName"].lower():
                        spot = _lower(spot, item["retailPrice"])
                    else:
                        price = _lower(price, item["retailPrice"])
                    found[item["armSkuName"]] = (price, spot)
            if not page.get("NextPageLink"):
                return found
            page = self._prices.get(page["NextPageLink"])

    def _sizes(self, region: str) -> dict[str, _Size]:
        if self._management is None:
            here = {o.instance_type: o for o in self._known if o.region == region}
            return {name: _as_known(offer, name in here) for name, offer in self._by_name(here).items()}
        path = f"/subscriptions/{self._subscription}/providers/Microsoft.Compute/skus"
        query = {"api-version": _SKUS_VERSION, "$filter": f"location eq '{region}'"}
        sizes: dict[str, _Size] = {}
        page = self._management.get(path, query)
        while True:
            for sku in page.get("value", ()):
                if sku.get("resourceType") == "virtualMachines" and (size := _size(sku)) is not None:
                    sizes[sku["name"]] = size
            if not page.get("nextLink"):
                return sizes
            page = self._management.get(page["nextLink"])

    def _by_name(self, here: dict[str, Offer]) -> dict[str, Offer]:
        """Known sizes: a size is the same machine everywhere, so another region's row tells its specification."""
        return {**{offer.instance_type: offer for offer in self._known}, **here}


def accelerator_of_size(name: str, gpus: float) -> tuple[str | None, float]:
    """Which accelerator a size has, and how many; (None, 0) for a size without any, or of a kind not known here."""
    for pattern, accelerator in _GPU_SIZES:
        if re.match(pattern, name):
            vcpus = int(re.search(r"\d+", name).group())  # type: ignore[union-attr]  # the pattern holds a number
            return accelerator, _A10_FRACTION.get(vcpus, gpus) if accelerator == "A10" else gpus
    return None, 0.0


def _size(sku: dict[str, Any]) -> _Size | None:
    """The specification in a Resource SKU; None when it cannot be had, or has GPUs that nobody here can name."""
    if any(
        block.get("reasonCode") == "NotAvailableForSubscription" and block.get("type") == "Location"
        for block in sku.get("restrictions", ())
    ):
        return None
    has = {entry["name"]: entry["value"] for entry in sku.get("capabilities", ())}
    if has.get("CpuArchitectureType", "x64") != "x64" or "vCPUs" not in has or "MemoryGB" not in has:
        return None
    gpus = float(has.get("GPUs", 0))
    accelerator, count = accelerator_of_size(sku["name"], gpus)
    if gpus and accelerator is None:
        return None
    zones = sorted({zone for place in sku.get("locationInfo", ()) for zone in place.get("zones", ())})
    memory = ACCELERATORS[accelerator][1] if accelerator else None
    return _Size(
        float(has.get("vCPUsAvailable", has["vCPUs"])), float(has["MemoryGB"]), accelerator, count, memory, tuple(zones)
    )


def _as_known(offer: Offer, keeps_zones: bool) -> _Size:
    return _Size(
        offer.vcpus,
        offer.memory_gib,
        offer.accelerator,
        offer.accelerator_count,
        offer.accelerator_memory_gib,
        offer.zones if keeps_zones else (),
    )


def _offer(name: str, size: _Size, region: str, price: float | None, spot: float | None) -> Offer:
    return Offer(
        "azure",
        name,
        size.vcpus,
        size.memory_gib,
        size.accelerator,
        size.count,
        size.accelerator_memory_gib,
        region,
        size.zones,
        price,
        spot,
    )


def _is_linux_hour(item: dict[str, Any]) -> bool:
    """Whether a price is of a plain Linux machine by the hour, on demand or spot."""
    product, sku = item.get("productName", ""), item.get("skuName", "")
    return bool(
        item.get("armSkuName")
        and item.get("unitOfMeasure") == "1 Hour"
        and item.get("type", "Consumption") == "Consumption"
        and item.get("retailPrice")  # 0 stands for "no price" there
        and "Windows" not in product
        and "Cloud Services" not in product
        and "Low Priority" not in sku
        and "Low Priority" not in item.get("meterName", "")
    )


def _lower(known: float | None, other: float) -> float:
    return other if known is None else min(known, other)


def _token() -> Callable[[], str]:
    """Tokens for the management API; azure-identity keeps and renews them itself."""
    from azure.identity import DefaultAzureCredential  # type: ignore[import-not-found]

    credential = DefaultAzureCredential()
    return lambda: credential.get_token(f"{_MANAGEMENT}/.default").token
