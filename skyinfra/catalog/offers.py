"""One offer: a kind of machine, in one region, at a price; and how a file of offers is read and written.

An offer that a file leaves empty stays unknown (`None`): unknown is never zero, and an unknown price is never
cheapest. A row of the data says where a cloud sells a machine type; a *live* catalog (the local machine, an ssh pool,
a Kubernetes context) says what is really there, and is asked each time. Where the rows come from is `sources`'
business, which of them fit is `query`'s.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Protocol

from skyinfra.catalog.tpus import slice_name
from skyinfra.model.accelerators import canonical_accelerator

if TYPE_CHECKING:
    from skyinfra.catalog.ask import Ask

__all__ = ["COLUMNS", "LiveCatalog", "Offer", "read_offers", "write_offers"]

COLUMNS = (
    "instance_type",
    "vcpus",
    "memory_gib",
    "accelerator",
    "accelerator_count",
    "accelerator_memory_gib",
    "region",
    "zones",
    "on_demand_usd_per_hour",
    "spot_usd_per_hour",
    "local_disk_gb",
)
_OPTIONAL = ("local_disk_gb",)  # data older than the column lacks it


@dataclass(frozen=True, slots=True)
class Offer:
    """A machine type in one region. Prices are USD per hour for the whole machine; None = not known."""

    cloud: str
    instance_type: str
    vcpus: float | None
    memory_gib: float | None
    accelerator: str | None
    accelerator_count: float
    accelerator_memory_gib: float | None  #: of one accelerator
    region: str
    zones: tuple[str, ...]
    price: float | None
    spot_price: float | None
    local_disk_gb: float | None = None  #: NVMe disks that come with the machine, all together

    def hourly(self, spot: bool) -> float | None:
        """The price in one of the two ways to buy it, or None when it is not known or not sold so."""
        return self.spot_price if spot else self.price


class LiveCatalog(Protocol):
    """What a machine, a pool or a context has right now."""

    cloud: str

    def offers(self, ask: Ask) -> Sequence[Offer]:
        """The offers that fit, already sized to what was asked; empty when nothing does. Must not block long."""
        ...

    def inventory(self) -> Sequence[Offer]:
        """Everything there is, for listings and for telling why nothing fits."""
        ...


def read_offers(cloud: str, file: IO[str]) -> Iterator[Offer]:
    """The offers of a CSV file in our columns.

    Raises `ValueError` naming the line when a column is missing or a number is not one.
    """
    reader = csv.DictReader(file)
    missing = [name for name in COLUMNS if name not in (*(reader.fieldnames or ()), *_OPTIONAL)]
    if missing:
        raise ValueError(f"catalog of {cloud}: column {missing[0]!r} is missing")
    for row in reader:
        try:
            yield _offer(cloud, row)
        except ValueError as exc:
            raise ValueError(f"catalog of {cloud}, line {reader.line_num}: {exc}") from exc


def write_offers(offers: Iterable[Offer], file: IO[str]) -> int:
    """Write offers in our columns; returns how many. What was read comes back the same, TPU names aside."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    written = 0
    for offer in offers:
        writer.writerow(
            (
                offer.instance_type,
                _text(offer.vcpus),
                _text(offer.memory_gib),
                offer.accelerator or "",
                _text(offer.accelerator_count or None),
                _text(offer.accelerator_memory_gib),
                offer.region,
                ";".join(offer.zones),
                _text(offer.price),
                _text(offer.spot_price),
                _text(offer.local_disk_gb),
            )
        )
        written += 1
    return written


def _offer(cloud: str, row: dict[str, str]) -> Offer:
    region = row["region"]
    accelerator, count = row["accelerator"] or None, _number(row["accelerator_count"]) or 0.0
    memory = _number(row["accelerator_memory_gib"])
    if accelerator is not None and (name := slice_name(accelerator, row["instance_type"])) is not None:
        # A slice is asked for whole (`tpu-v5p-8`, one of it), whatever number of chips the data counts in it.
        memory = None if memory is None else memory * count
        accelerator, count = name, 1.0
    elif accelerator is not None:
        accelerator = canonical_accelerator(accelerator)
    return Offer(
        cloud,
        row["instance_type"],
        _number(row["vcpus"]),
        _number(row["memory_gib"]),
        accelerator,
        count,
        memory,
        region,
        tuple(_zone(cloud, region, zone) for zone in row["zones"].split(";") if zone),
        _number(row["on_demand_usd_per_hour"]),
        _number(row["spot_usd_per_hour"]),
        _number(row.get("local_disk_gb") or ""),
    )


def _zone(cloud: str, region: str, zone: str) -> str:
    """GCP's files hold the letter only; a zone is known by its whole name everywhere else."""
    return f"{region}-{zone}" if cloud == "gcp" and len(zone) == 1 else zone


def _number(text: str) -> float | None:
    if not text:
        return None
    value = float(text)
    if not 0 <= value < float("inf"):
        raise ValueError(f"{text!r} is not a quantity")
    return value


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.10g}"
