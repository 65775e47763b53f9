"""Azure and GCP against a server of this process that answers as the price APIs do, in their shapes."""

from __future__ import annotations

import http.server
import json
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from skyinfra.catalog.catalog import Catalog
from skyinfra.catalog.offers import Offer
from skyinfra.catalog.refresh import refresh
from skyinfra.catalog.refresh.azure import AzurePrices, accelerator_of_size
from skyinfra.catalog.refresh.gcp import GcpPrices, Parts
from skyinfra.catalog.refresh.http import JsonApi
from skyinfra.catalog.sources import Sources
from skyinfra.model.exceptions import CloudError

Answer = Callable[[str, dict[str, str]], "tuple[int, dict[str, str], Any]"]


class Api:
    """A server on loopback; `answers` maps a path to what it says, `asked` keeps what it was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.asked: list[tuple[str, dict[str, str], str | None]] = []
        api = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                parts = urllib.parse.urlsplit(self.path)
                query = dict(urllib.parse.parse_qsl(parts.query))
                api.asked.append((parts.path, query, self.headers.get("Authorization")))
                answer = api.answers.get(parts.path, lambda *_: (404, {}, {"error": "no such path"}))
                status, headers, body = answer(parts.path, query)
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.base = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def says(self, path: str, body: Any) -> None:
        self.answers[path] = lambda *_: (200, {}, body)


@pytest.fixture
def api() -> Iterator[Api]:
    served = Api()
    yield served
    served.server.shutdown()
    served.server.server_close()


@pytest.fixture
def waits() -> list[float]:
    return []


def client(api: Api, waits: list[float], cloud: str = "azure", token: str | None = None) -> JsonApi:
    return JsonApi(cloud, api.base, (lambda: token) if token else None, sleep=waits.append)


# --- the transport ---------------------------------------------------------------------------------------------------


def test_throttling_is_waited_out_as_long_as_the_server_asks(api: Api, waits: list[float]) -> None:
    answers = iter([(429, {"Retry-After": "7"}, {}), (503, {}, {}), (200, {}, {"ok": 1})])
    api.answers["/x"] = lambda *_: next(answers)
    assert client(api, waits).get("/x") == {"ok": 1}
    assert waits[0] == 7
    assert 0 < waits[1] <= 3


def test_a_server_that_stays_down_ends_in_its_own_words(api: Api, waits: list[float]) -> None:
    api.answers["/x"] = lambda *_: (503, {}, {"error": "come back later"})
    with pytest.raises(CloudError, match=r"answered 503.*come back later"):
        client(api, waits).get("/x")
    assert len(api.asked) == 5


def test_a_refusal_is_not_tried_again_and_hints_at_credentials(api: Api, waits: list[float]) -> None:
    api.answers["/x"] = lambda *_: (403, {}, {"error": "nope"})
    with pytest.raises(CloudError) as caught:
        client(api, waits, token="t").get("/x")
    assert "credentials" in caught.value.hint  # type: ignore[attr-defined]
    assert (len(api.asked), waits, api.asked[0][2]) == (1, [], "Bearer t")


@pytest.mark.parametrize("body", [b"<html>", b"[]"])
def test_what_is_not_a_json_object_is_refused(api: Api, waits: list[float], body: bytes) -> None:
    api.says("/x", body)
    with pytest.raises(CloudError, match="did not answer in JSON"):
        client(api, waits).get("/x")


def test_a_token_is_not_carried_to_another_host(api: Api, waits: list[float]) -> None:
    with pytest.raises(CloudError, match="lies outside"):
        client(api, waits, token="t").get("http://127.0.0.2:1/next")
    assert api.asked == []


def test_a_port_that_is_the_default_one_is_the_same_host(waits: list[float]) -> None:
    """Azure's next-page links name port 443; only the connection is missing here."""
    api = JsonApi("azure", "https://127.0.0.1", sleep=waits.append)
    with pytest.raises(CloudError) as caught:
        api.get("https://127.0.0.1:443/next")
    assert caught.value.error_type == "Unreachable"


# --- Azure ----------------------------------------------------------------------------------------


def price(name: str, usd: float, sku: str = "", product: str = "Virtual Machines", **more: Any) -> dict[str, Any]:
    item = {
        "armSkuName": name,
        "retailPrice": usd,
        "unitOfMeasure": "1 Hour",
        "productName": product,
        "skuName": sku or name,
        "meterName": name,
        "type": "Consumption",
    }
    return {**item, **more}


def capabilities(**named: str) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in named.items()]


PRICES = [
    price("Standard_ND96isr_H100_v5", 98.32),
    price("Standard_ND96isr_H100_v5", 130.0, product="Virtual Machines Windows"),
    price("Standard_ND96isr_H100_v5", 19.6, sku="ND96isr_H100_v5 Spot"),
    price("Standard_ND96isr_H100_v5", 9.6, sku="ND96isr_H100_v5 Low Priority"),
    price("Standard_D8s_v5", 0.384),
    price("Standard_D8s_v5", 200.0, unitOfMeasure="1 Month"),
    price("Standard_D8s_v5", 0.0),
    price("Standard_X1_unheard", 1.0),
]
SKUS = [
    {
        "resourceType": "virtualMachines",
        "name": "Standard_ND96isr_H100_v5",
        "capabilities": capabilities(vCPUs="96", MemoryGB="1900", GPUs="8", CpuArchitectureType="x64"),
        "locationInfo": [{"zones": ["2", "1"]}],
    },
    {
        "resourceType": "virtualMachines",
        "name": "Standard_D8s_v5",
        "capabilities": capabilities(vCPUs="8", MemoryGB="32"),
        "locationInfo": [{"zones": []}],
    },
    {
        "resourceType": "virtualMachines",
        "name": "Standard_D8ps_v5",
        "capabilities": capabilities(vCPUs="8", MemoryGB="32", CpuArchitectureType="Arm64"),
    },
    {"resourceType": "disks", "name": "Premium_LRS"},
]


def azure_answers(api: Api) -> None:
    def prices(path: str, query: dict[str, str]) -> tuple[int, dict[str, str], Any]:
        if "armRegionName eq 'eastus'" not in query.get("$filter", ""):
            return 200, {}, {"Items": []}
        if "$skip" not in query:
            link = f"{api.base}{path}?" + urllib.parse.urlencode({"$filter": query["$filter"], "$skip": "3"})
            return 200, {}, {"Items": PRICES[:3], "NextPageLink": link}
        return 200, {}, {"Items": PRICES[3:], "NextPageLink": None}

    api.answers["/api/retail/prices"] = prices
    api.says("/subscriptions/s-1/providers/Microsoft.Compute/skus", {"value": SKUS})


def test_azure_prices_and_specifications_meet_in_offers(api: Api, waits: list[float]) -> None:
    azure_answers(api)
    found = AzurePrices(client(api, waits), client(api, waits, token="t"), "s-1", []).offers(["eastus"])
    assert list(found) == [
        Offer("azure", "Standard_D8s_v5", 8, 32, None, 0, None, "eastus", (), 0.384, None),
        Offer("azure", "Standard_ND96isr_H100_v5", 96, 1900, "H100", 8, 80, "eastus", ("1", "2"), 98.32, 19.6),
    ]
    assert {authorization for path, _, authorization in api.asked if path.startswith("/api")} == {None}


def test_azure_without_a_subscription_moves_the_prices_of_known_sizes(
    api: Api, waits: list[float], shipped: Catalog
) -> None:
    azure_answers(api)
    known = list(shipped.everything("azure"))
    found = {o.instance_type: o for o in AzurePrices(client(api, waits), None, None, known).offers(["eastus"])}
    assert set(found) == {"Standard_D8s_v5", "Standard_ND96isr_H100_v5"}
    h100 = found["Standard_ND96isr_H100_v5"]
    assert (h100.price, h100.vcpus, h100.accelerator, h100.accelerator_count) == (98.32, 96, "H100", 8)


def test_every_shipped_azure_gpu_size_is_named_by_its_rule(shipped: Catalog) -> None:
    for o in shipped.everything("azure"):
        if o.accelerator is not None:
            name, count = accelerator_of_size(o.instance_type, o.accelerator_count)
            assert (name, count) == (o.accelerator, pytest.approx(o.accelerator_count, abs=0.001)), o.instance_type
        else:
            assert accelerator_of_size(o.instance_type, 0) == (None, 0.0)


# --- GCP ----------------------------------------------------------------------------------------


def sku(
    description: str, usd: float, spot: bool = False, unit: str = "h", regions: tuple[str, ...] = ("us-central1",)
) -> Any:
    nanos = {"units": str(int(usd)), "nanos": round((usd - int(usd)) * 1e9)}
    return {
        "description": description,
        "category": {"usageType": "Preemptible" if spot else "OnDemand"},
        "serviceRegions": list(regions),
        "pricingInfo": [{"pricingExpression": {"usageUnit": unit, "tieredRates": [{"unitPrice": nanos}]}}],
    }


SKU_PAGES = [
    [
        sku("N2 Instance Core running in Americas", 0.03),
        sku("N2 Instance Ram running in Americas", 0.004, unit="GiBy.h"),
        sku("Spot Preemptible N2 Instance Core running in Americas", 0.01, spot=True),
        sku("Spot Preemptible N2 Instance Ram running in Americas", 0.001, spot=True, unit="GiBy.h"),
        sku("Commitment v1: N2 Cpu in Americas for 1 Year", 0.001),
        sku("N2 Custom Instance Core running in Americas", 0.002),
        sku("N2 Instance Core running in Frankfurt", 9.0, regions=("europe-west3",)),
    ],
    [
        sku("A2 Instance Core running in Americas", 0.03),
        sku("A2 Instance Ram running in Americas", 0.004, unit="GiBy.h"),
        sku("Nvidia Tesla A100 GPU running in Americas", 2.9),
        sku("Nvidia Tesla A100 80GB GPU running in Americas", 3.9),
        sku("N1 Predefined Instance Core running in Americas", 0.03),
        sku("N1 Predefined Instance Ram running in Americas", 0.004, unit="GiBy.h"),
        sku("Nvidia Tesla T4 GPU running in Americas", 0.35),
        sku("Network Internet Egress", 0.1, unit="GiBy"),
    ],
]


def machine(name: str, cpus: int, gib: float, zone: str, gpu: tuple[str, int] | None = None) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": name,
        "guestCpus": cpus,
        "memoryMb": int(gib * 1024),
        "zone": f"https://c/zones/{zone}",
    }
    if gpu is not None:
        found["accelerators"] = [{"guestAcceleratorType": gpu[0], "guestAcceleratorCount": gpu[1]}]
    return found


def gcp_answers(api: Api) -> None:
    def skus(path: str, query: dict[str, str]) -> tuple[int, dict[str, str], Any]:
        if "pageToken" in query:
            return 200, {}, {"skus": SKU_PAGES[1], "nextPageToken": ""}
        return 200, {}, {"skus": SKU_PAGES[0], "nextPageToken": "more"}

    api.answers["/v1/services/6F81-5844-456A/skus"] = skus
    machines = [
        machine("n2-standard-8", 8, 32, "us-central1-a"),
        machine("n2-standard-8", 8, 32, "us-central1-b"),
        machine("n2-standard-8", 8, 32, "asia-east1-a"),
        machine("n1-standard-4", 4, 15, "us-central1-a"),
        machine("n1-standard-4", 4, 15, "us-central1-c"),
        machine("a2-highgpu-1g", 12, 85, "us-central1-a", ("nvidia-tesla-a100", 1)),
        machine("z9-odd-1g", 12, 85, "us-central1-a", ("nvidia-unheard-of", 1)),
    ]
    scopes = {f"zones/{m['zone'][-13:]}/{n}": {"machineTypes": [m]} for n, m in enumerate(machines)}
    api.says("/compute/v1/projects/p-1/aggregated/machineTypes", {"items": {**scopes, "zones/empty": {"warning": {}}}})
    gpus = [{"name": "nvidia-tesla-t4", "zone": "https://c/zones/us-central1-a"}]
    api.says("/compute/v1/projects/p-1/aggregated/acceleratorTypes", {"items": {"z": {"acceleratorTypes": gpus}}})


def test_gcp_machines_cost_their_parts(api: Api, waits: list[float], shipped: Catalog) -> None:
    gcp_answers(api)
    both = client(api, waits, "gcp", token="t")
    found = list(GcpPrices(both, both, "p-1", shipped.everything("gcp")).offers(["us-central1"]))
    plain = {(o.instance_type, o.accelerator): o for o in found}
    n2 = plain["n2-standard-8", None]
    assert (n2.price, n2.spot_price) == (pytest.approx(8 * 0.03 + 32 * 0.004), pytest.approx(8 * 0.01 + 32 * 0.001))
    assert n2.zones == ("us-central1-a", "us-central1-b")
    a2 = plain["a2-highgpu-1g", "A100"]
    assert (a2.price, a2.spot_price) == (pytest.approx(12 * 0.03 + 85 * 0.004 + 2.9), None)
    t4 = plain["n1-standard-4", "T4"]
    assert (t4.zones, t4.accelerator_count) == (("us-central1-a",), 1)
    assert t4.price == pytest.approx(4 * 0.03 + 15 * 0.004 + 0.35)
    assert plain["n1-standard-4", None].zones == ("us-central1-a", "us-central1-c")
    assert not any(o.instance_type == "z9-odd-1g" for o in found)
    kept = {o.accelerator for o in found if o.accelerator and o.accelerator.startswith("tpu-")}
    assert "tpu-v5p-8" in kept
    assert {o.region for o in found} == {"us-central1"}


def test_gcp_part_prices_pass_over_what_is_not_plain() -> None:
    parts = Parts()
    for one in (
        sku("Commitment v1: A100 GPU in Americas", 0.1),
        sku("Nvidia Tesla A100 GPU DWS Calendar Mode running in Americas", 0.1),
        sku("Nvidia Tesla A100 GPU running in Americas", 2.9),
        sku("Nvidia Tesla A100 GPU attached to Spot Preemptible VMs running in Americas", 1.1, spot=True),
        sku("N2 Instance Core running in Americas", 0.5, unit="mo"),
    ):
        parts.add(one)
    assert parts.machine("N2", 0, 0, ("A100", 1), "us-central1", False) is None  # its core has no hourly price
    parts.add(sku("N2 Instance Core running in Americas", 1.0))
    parts.add(sku("N2 Instance Ram running in Americas", 1.0, unit="GiBy.h"))
    assert parts.machine("N2", 1, 1, ("A100", 2), "us-central1", False) == pytest.approx(2 + 5.8)


# --- the whole refresh ----------------------------------------------------------------------------------------


def test_a_refresh_is_what_the_next_catalog_reads(api: Api, waits: list[float], tmp_path: Path) -> None:
    azure_answers(api)
    collect = AzurePrices(client(api, waits), client(api, waits, token="t"), "s-1", []).offers
    done = refresh("Azure", tmp_path, ["eastus"], collect)
    catalog = Catalog.from_sources(Sources(tmp_path / "catalog", None))
    age = catalog.as_of("azure")
    assert age is not None
    assert (age.refreshed, age.path) == (True, done.path)
    regions = {o.region for o in catalog.everything("azure")}
    assert {"eastus", "westus2"} <= regions  # regions that were not asked for keep what they had
    assert {o.instance_type for o in catalog.everything("azure") if o.region == "eastus"} == {
        "Standard_D8s_v5",
        "Standard_ND96isr_H100_v5",
    }


@pytest.mark.parametrize("regions", [None, ["eastus"]])
def test_an_empty_answer_changes_nothing(tmp_path: Path, regions: list[str] | None) -> None:
    with pytest.raises(CloudError, match="without a single offer"):
        refresh("azure", tmp_path, regions, lambda _: [])
    assert not (tmp_path / "catalog").exists()


def test_a_refresh_that_breaks_half_way_leaves_the_file_and_no_litter(tmp_path: Path, offer: Any) -> None:
    refresh("aws", tmp_path, None, lambda _: [offer("aws", "x1")])
    before = (tmp_path / "catalog" / "aws.csv").read_bytes()

    def breaks(_: object) -> Iterator[Offer]:
        yield offer("aws", "x2")
        raise CloudError("gone", "aws", "Gone")

    with pytest.raises(CloudError):
        refresh("aws", tmp_path, None, breaks)
    assert (tmp_path / "catalog" / "aws.csv").read_bytes() == before
    assert [path.name for path in (tmp_path / "catalog").iterdir()] == ["aws.csv"]


def test_a_cloud_without_a_price_api_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="refreshable: aws, azure, gcp"):
        refresh("lambda", tmp_path)
