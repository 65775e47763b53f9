"""GCP: prices from the Cloud Billing Catalog, machines and accelerators from the Compute API.

GCP sells parts: a machine's price is its vCPUs, its memory and its GPUs, each a SKU of the region. A machine of which
one part has no SKU has no price. TPU slices are kept as the catalog in use has them: their SKUs name chips, not slices.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from skyinfra.catalog.offers import Offer
from skyinfra.catalog.refresh.http import JsonApi
from skyinfra.model.accelerators import ACCELERATORS, is_tpu
from skyinfra.model.exceptions import CloudError, with_hint

__all__ = ["GcpPrices", "Parts"]

_BILLING = "https://cloudbilling.googleapis.com"
_COMPUTE = "https://compute.googleapis.com"
_COMPUTE_ENGINE = "services/6F81-5844-456A"
_SCOPE = "https://www.googleapis.com/auth/cloud-platform"

_NOT_PLAIN = re.compile(r"commitment|reserved|DWS|calendar mode|sole tenancy|custom|flex", re.I)
_PART = re.compile(
    r"^(?:Spot Preemptible )?(?P<family>[A-Z]\d[A-Z]?) (?:Predefined )?Instance (?P<part>Core|Ram) ", re.I
)
_GPU = re.compile(r"^(?P<name>Nvidia .+?) GPU(?: attached to Spot Preemptible VMs)? (?:running )?in ", re.I)
_GPU_SKUS = {
    "nvidia tesla t4": "T4",
    "nvidia tesla v100": "V100",
    "nvidia l4": "L4",
    "nvidia tesla a100": "A100",
    "nvidia tesla a100 80gb": "A100-80GB",
    "nvidia h100 80gb": "H100",
    "nvidia h100 80gb plus": "H100-MEGA",
    "nvidia h200 141gb": "H200",
    "nvidia b200": "B200",
}
_ACCELERATOR_TYPES = {
    "nvidia-tesla-t4": "T4",
    "nvidia-tesla-v100": "V100",
    "nvidia-l4": "L4",
    "nvidia-tesla-a100": "A100",
    "nvidia-a100-80gb": "A100-80GB",
    "nvidia-h100-80gb": "H100",
    "nvidia-h100-mega-80gb": "H100-MEGA",
    "nvidia-h200-141gb": "H200",
    "nvidia-b200": "B200",
}
#: vCPUs that are paid for where they are not the ones that the guest sees.
_SHARED_CORE = {"e2-micro": 0.25, "e2-small": 0.5, "e2-medium": 1.0}
#: GPUs that are attached to N1 machines, and the machines that are offered with how many of them.
_ATTACHED: Mapping[str, Sequence[tuple[int, str]]] = {
    "T4": (
        (1, "n1-standard-4"),
        (1, "n1-standard-8"),
        (1, "n1-highmem-8"),
        (2, "n1-standard-16"),
        (4, "n1-standard-32"),
    ),
    "V100": ((1, "n1-standard-8"), (2, "n1-standard-16"), (4, "n1-standard-32"), (8, "n1-standard-64")),
}

Key = tuple[str, str, bool]  # part ("N2/core", "GPU/L4"), region, spot


class Parts:
    """Hourly prices of parts by region and way of buying."""

    def __init__(self) -> None:
        self._prices: dict[Key, float] = {}

    def add(self, sku: Mapping[str, Any]) -> None:
        """Take a billing SKU, if it is the price of a part; others are passed over."""
        description = sku.get("description", "")
        usage = sku.get("category", {}).get("usageType")
        part = _part_of(description)
        if part is None or usage not in ("OnDemand", "Preemptible") or _NOT_PLAIN.search(description):
            return
        price = _unit_price(sku)
        if price is None:
            return
        for region in sku.get("serviceRegions", ()):
            key = (part, region, usage == "Preemptible")
            self._prices[key] = min(price, self._prices.get(key, price))

    def machine(
        self, family: str, cpus: float, memory_gib: float, gpu: tuple[str, float] | None, region: str, spot: bool
    ) -> float | None:
        """The price of a whole machine; None when one of its parts has no price there."""
        wanted = [(f"{family}/core", cpus), (f"{family}/ram", memory_gib)]
        if gpu is not None:
            wanted.append((f"GPU/{gpu[0]}", gpu[1]))
        total = 0.0
        for part, amount in wanted:
            price = self._prices.get((part, region, spot))
            if price is None:
                return None
            total += price * amount
        return round(total, 6)


@dataclass(slots=True)
class _Machine:
    name: str
    cpus: float
    memory_gib: float
    gpu: tuple[str, float] | None
    zones: set[str]


class GcpPrices:
    """Offers of GCP."""

    def __init__(self, billing: JsonApi, compute: JsonApi, project: str, known: Iterable[Offer]) -> None:
        self._billing = billing
        self._compute = compute
        self._project = project
        self._slices = [offer for offer in known if offer.accelerator is not None and is_tpu(offer.accelerator)]

    @classmethod
    def from_environment(cls, known: Iterable[Offer]) -> GcpPrices:
        """With application default credentials and their project. Raises `CloudError` without either."""
        token, project = _credentials()
        return cls(JsonApi("gcp", _BILLING, token), JsonApi("gcp", _COMPUTE, token), project, known)

    def offers(self, regions: Sequence[str] | None = None) -> Iterator[Offer]:
        """Offers of some regions (None: all). Raises `CloudError`."""
        wanted = None if regions is None else set(regions)
        parts = self._parts()
        attachable = self._attachable()
        for region, machines in sorted(self._machines().items()):
            if wanted is not None and region not in wanted:
                continue
            for machine in machines.values():
                yield _offer(machine, region, parts)
                for gpu, zones in attachable.items():
                    yield from _attached(machine, gpu, machine.zones & zones, region, parts)
        yield from (offer for offer in self._slices if wanted is None or offer.region in wanted)

    def _parts(self) -> Parts:
        parts = Parts()
        for page in self._billing.pages(f"/v1/{_COMPUTE_ENGINE}/skus", {"currencyCode": "USD", "pageSize": "5000"}):
            for sku in page.get("skus", ()):
                parts.add(sku)
        return parts

    def _machines(self) -> dict[str, dict[str, _Machine]]:
        """Machine types by region, each with the zones that have it."""
        found: dict[str, dict[str, _Machine]] = {}
        for item in self._aggregated("machineTypes"):
            machine = _machine(item)
            if machine is None:
                continue
            zone = item["zone"].rpartition("/")[2]
            here = found.setdefault(zone.rpartition("-")[0], {})
            here.setdefault(machine.name, machine).zones.add(zone)
        return found

    def _attachable(self) -> dict[str, set[str]]:
        """Zones of each GPU that is attached to N1 machines."""
        zones: dict[str, set[str]] = {}
        for item in self._aggregated("acceleratorTypes"):
            name = _ACCELERATOR_TYPES.get(item["name"])
            if name is not None and name in _ATTACHED:
                zones.setdefault(name, set()).add(item["zone"].rpartition("/")[2])
        return zones

    def _aggregated(self, kind: str) -> Iterator[dict[str, Any]]:
        path = f"/compute/v1/projects/{self._project}/aggregated/{kind}"
        for page in self._compute.pages(path, {"maxResults": "500", "returnPartialSuccess": "true"}):
            for scope in page.get("items", {}).values():
                yield from scope.get(kind, ())


def _machine(item: Mapping[str, Any]) -> _Machine | None:
    """A machine type; None for one that is gone, or whose accelerator nobody here can name."""
    if item.get("deprecated", {}).get("state") in ("OBSOLETE", "DELETED") or "-custom-" in item["name"]:
        return None
    gpu = None
    if item.get("accelerators"):
        has = item["accelerators"][0]
        name = _ACCELERATOR_TYPES.get(has["guestAcceleratorType"])
        if name is None:
            return None
        gpu = (name, float(has["guestAcceleratorCount"]))
    return _Machine(item["name"], float(item["guestCpus"]), item["memoryMb"] / 1024, gpu, set())


def _offer(machine: _Machine, region: str, parts: Parts) -> Offer:
    family = machine.name.partition("-")[0].upper()
    billed = _SHARED_CORE.get(machine.name, machine.cpus)
    price, spot = (
        parts.machine(family, billed, machine.memory_gib, machine.gpu, region, by_spot) for by_spot in (False, True)
    )
    name, count = machine.gpu or (None, 0.0)
    return Offer(
        "gcp",
        machine.name,
        machine.cpus,
        machine.memory_gib,
        name,
        count,
        float(ACCELERATORS[name][1]) if name else None,
        region,
        tuple(sorted(machine.zones)),
        price,
        spot,
    )


def _attached(machine: _Machine, gpu: str, zones: set[str], region: str, parts: Parts) -> Iterator[Offer]:
    """An N1 machine with GPUs on it, in the zones that have both."""
    for count, name in _ATTACHED[gpu]:
        if name == machine.name and zones:
            yield _offer(_Machine(name, machine.cpus, machine.memory_gib, (gpu, float(count)), zones), region, parts)


def _part_of(description: str) -> str | None:
    if (machine := _PART.match(description)) is not None:
        return f"{machine['family'].upper()}/{machine['part'].lower()}"
    if (gpu := _GPU.match(description)) is not None:
        name = _GPU_SKUS.get(gpu["name"].lower())
        return None if name is None else f"GPU/{name}"
    return None


def _unit_price(sku: Mapping[str, Any]) -> float | None:
    """USD per hour (of a core, a GiB or a GPU), from the last tier: earlier ones may be a free allowance."""
    for info in sku.get("pricingInfo", ())[:1]:
        expression = info.get("pricingExpression", {})
        if expression.get("usageUnit") not in ("h", "GiBy.h"):
            return None
        for tier in expression.get("tieredRates", ())[-1:]:
            unit = tier["unitPrice"]
            return int(unit.get("units") or 0) + int(unit.get("nanos") or 0) / 1e9
    return None


def _credentials() -> tuple[Callable[[], str], str]:
    import google.auth  # type: ignore[import-not-found]
    import google.auth.exceptions  # type: ignore[import-not-found]
    import google_auth_httplib2  # type: ignore[import-not-found]
    import httplib2  # type: ignore[import-not-found]

    try:
        credentials, project = google.auth.default(scopes=[_SCOPE])
    except google.auth.exceptions.DefaultCredentialsError as exc:
        raise with_hint(CloudError(str(exc), "gcp", "NoCredentials"), "gcloud auth application-default login") from exc
    project = os.environ.get("GOOGLE_CLOUD_PROJECT") or project
    if not project:
        raise with_hint(CloudError("no project is set", "gcp", "NoProject"), "set GOOGLE_CLOUD_PROJECT")
    transport = google_auth_httplib2.Request(httplib2.Http())

    def token() -> str:
        if not credentials.valid:
            credentials.refresh(transport)
        return credentials.token

    return token, project
