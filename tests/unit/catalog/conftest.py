"""Catalogs to test with: a small one whose every number is chosen, and the shipped one without any cache."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from skyinfra.catalog.catalog import Catalog
from skyinfra.catalog.offers import Offer
from skyinfra.catalog.sources import Sources
from skyinfra.catalog.table import Table


def make_offer(
    cloud: str,
    name: str,
    cpus: float = 8,
    gib: float = 32,
    gpu: str | None = None,
    count: float = 0,
    region: str = "r1",
    zones: tuple[str, ...] = (),
    price: float | None = 1.0,
    spot: float | None = None,
    gpu_gib: float | None = None,
) -> Offer:
    return Offer(cloud, name, cpus, gib, gpu, count, gpu_gib, region, zones, price, spot)


@pytest.fixture
def offer() -> Callable[..., Offer]:
    return make_offer


@pytest.fixture
def catalog_of() -> Callable[..., Catalog]:
    """A catalog of given offers."""

    def build(*offers: Offer) -> Catalog:
        clouds = {one.cloud for one in offers}
        return Catalog({cloud: Table.build(cloud, [o for o in offers if o.cloud == cloud]) for cloud in clouds})

    return build


@pytest.fixture(scope="session")
def shipped() -> Catalog:
    return Catalog.from_sources(Sources(None, None))
