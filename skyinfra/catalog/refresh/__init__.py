"""`catalog refresh aws|gcp|azure`: a cloud's offers from its own price and instance APIs, into the state folder.

The only part of the catalog that reaches out, and only when asked. A file is replaced whole or not at all: a refresh
that fails, or that comes back with next to nothing, leaves the prices that were there.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from skyinfra.catalog.offers import Offer, write_offers
from skyinfra.catalog.sources import PACKAGED, Sources
from skyinfra.model.exceptions import CloudError, with_hint

__all__ = ["REFRESHABLE", "Collect", "Refreshed", "refresh", "store"]

REFRESHABLE = PACKAGED

#: What collects the offers of some regions (None: all of them).
Collect = Callable[[Sequence[str] | None], Iterable[Offer]]


@dataclass(frozen=True, slots=True)
class Refreshed:
    """What a refresh did."""

    cloud: str
    path: Path
    offers: int
    without_price: int
    regions: int


def refresh(cloud: str, home: Path, regions: Sequence[str] | None = None, collect: Collect | None = None) -> Refreshed:
    """Collect a cloud's offers and store them. `collect` None = the cloud's own client, with its credentials.

    Given regions replace those regions only. Raises `ValueError` for a cloud that cannot be refreshed, `CloudError`
    when its API refuses or its answers hold no offers; the stored file is then as it was.
    """
    cloud = cloud.lower()
    if cloud not in REFRESHABLE:
        raise ValueError(f"{cloud!r} has no price API that is known here; refreshable: {', '.join(REFRESHABLE)}")
    sources = Sources.of_home(home)
    offers = list((collect or _collector(cloud, sources))(regions))
    if not any(offer.price is not None or offer.spot_price is not None for offer in offers):
        raise with_hint(
            CloudError("the price API answered without a single offer", cloud, "EmptyCatalog"),
            "check the regions and the rights of the credentials; the prices stored before are unchanged",
        )
    if regions is not None:
        offers += [offer for offer in _stored(cloud, sources) if offer.region not in set(regions)]
    path = store(cloud, home, offers)
    unpriced = sum(offer.price is None and offer.spot_price is None for offer in offers)
    return Refreshed(cloud, path, len(offers), unpriced, len({offer.region for offer in offers}))


def store(cloud: str, home: Path, offers: Iterable[Offer]) -> Path:
    """Write `<home>/catalog/<cloud>.csv`, whole or not at all; returns its path."""
    folder = home / "catalog"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    target = folder / f"{cloud}.csv"
    handle, name = tempfile.mkstemp(dir=folder, prefix=f".{cloud}-", suffix=".new")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            write_offers(sorted(offers, key=lambda o: (o.instance_type, o.accelerator or "", o.region)), file)
            file.flush()
            os.fsync(file.fileno())
        os.rename(name, target)
    except BaseException:
        os.unlink(name)
        raise
    return target


def _stored(cloud: str, sources: Sources) -> list[Offer]:
    table = sources.table(cloud)
    return [table.offer(row) for row in range(len(table))]


def _collector(cloud: str, sources: Sources) -> Collect:
    """The cloud's own client; its SDK, where it needs one, is imported only now."""
    if cloud == "aws":
        from skyinfra.catalog.refresh.aws import AwsPrices

        return AwsPrices.from_environment().offers
    if cloud == "gcp":
        from skyinfra.catalog.refresh.gcp import GcpPrices

        return GcpPrices.from_environment(_stored(cloud, sources)).offers
    from skyinfra.catalog.refresh.azure import AzurePrices

    return AzurePrices.from_environment(_stored(cloud, sources)).offers
