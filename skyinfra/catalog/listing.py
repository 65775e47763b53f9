"""What `gpus list` and `sky.list_accelerators` show: accelerators, how many, on which machines, at what price."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from skyinfra.catalog.catalog import Catalog
from skyinfra.catalog.matching import is_gpu
from skyinfra.catalog.offers import Offer

__all__ = ["InstanceTypeInfo", "list_accelerator_counts", "list_accelerators"]

CloudFilter = list[str] | str | None


class InstanceTypeInfo(NamedTuple):
    """One way to get an accelerator. None = not known."""

    cloud: str  #: as it is printed: AWS, GCP, Azure
    instance_type: str | None
    accelerator_name: str
    accelerator_count: float
    cpu_count: float | None
    device_memory: float | None  #: GB, of one accelerator
    memory: float | None  #: GB, of the host
    price: float | None
    spot_price: float | None
    region: str


def list_accelerators(
    gpus_only: bool = True,
    name_filter: str | None = None,
    region_filter: str | None = None,
    quantity_filter: int | None = None,
    clouds: CloudFilter = None,
    case_sensitive: bool = True,
    all_regions: bool = False,
    require_price: bool = True,
    *,
    catalog: Catalog | None = None,
) -> dict[str, list[InstanceTypeInfo]]:
    """Accelerators by name, each with its machine types, cheapest first; one row per type (`all_regions`: per region).

    The filters are regular expressions found anywhere in the name. `require_price` leaves out what has no known
    on-demand price, unless it has a spot price. Raises `ValueError` for a malformed expression, `KeyError` for a
    cloud without a catalog.
    """
    named = _pattern(name_filter, case_sensitive)
    placed = _pattern(region_filter, case_sensitive)
    found: dict[str, list[InstanceTypeInfo]] = {}
    for offer in _accelerated(_chosen(catalog or Catalog.default(), clouds)):
        name = offer.accelerator or ""
        if gpus_only and not is_gpu(name):
            continue
        if (named and not named.search(name)) or (placed and not placed.search(offer.region)):
            continue
        if quantity_filter is not None and offer.accelerator_count != quantity_filter:
            continue
        if require_price and offer.price is None and offer.spot_price is None:
            continue
        found.setdefault(name, []).append(_info(offer))
    for name, rows in found.items():
        rows.sort(key=_order)
        if not all_regions:
            found[name] = _cheapest_of_each_type(rows)
    return dict(sorted(found.items()))


def list_accelerator_counts(
    gpus_only: bool = True,
    name_filter: str | None = None,
    region_filter: str | None = None,
    quantity_filter: int | None = None,
    clouds: CloudFilter = None,
    *,
    catalog: Catalog | None = None,
) -> dict[str, list[float]]:
    """For each accelerator the numbers in which it comes, smallest first. Raises as `list_accelerators`."""
    listed = list_accelerators(
        gpus_only, name_filter, region_filter, quantity_filter, clouds, require_price=False, catalog=catalog
    )
    return {name: sorted({_whole(row.accelerator_count) for row in rows}) for name, rows in listed.items()}


def _chosen(catalog: Catalog, clouds: CloudFilter) -> Catalog:
    if clouds is None:
        return catalog
    wanted = [clouds] if isinstance(clouds, str) else clouds
    for cloud in wanted:
        if cloud.lower() not in catalog.clouds:
            raise KeyError(cloud)
    return catalog.only(wanted)


def _accelerated(catalog: Catalog) -> Iterator[Offer]:
    for cloud in catalog.clouds:
        if catalog.live(cloud) is not None:
            yield from (offer for offer in catalog.everything(cloud) if offer.accelerator is not None)
            continue
        table = catalog.table(cloud)
        for number, shape in enumerate(table.shapes):
            if shape.accelerator is not None:
                yield from (table.offer(row) for row in table.rows_of_shape(number))


def _pattern(text: str | None, case_sensitive: bool) -> re.Pattern[str] | None:
    if text is None:
        return None
    try:
        return re.compile(text, 0 if case_sensitive else re.IGNORECASE)
    except re.error as exc:
        raise ValueError(f"{text!r} is not a regular expression: {exc}") from exc


def _info(offer: Offer) -> InstanceTypeInfo:
    from skyinfra.model.clouds import CLOUD_REGISTRY

    cloud = CLOUD_REGISTRY.get(offer.cloud)
    return InstanceTypeInfo(
        offer.cloud if cloud is None else repr(cloud),
        offer.instance_type,
        offer.accelerator or "",
        _whole(offer.accelerator_count),
        offer.vcpus,
        offer.accelerator_memory_gib,
        offer.memory_gib,
        offer.price,
        offer.spot_price,
        offer.region,
    )


def _order(row: InstanceTypeInfo) -> tuple[float, float, float, str, str, str]:
    unknown = float("inf")
    return (
        row.accelerator_count,
        unknown if row.price is None else row.price,
        unknown if row.spot_price is None else row.spot_price,
        row.cloud,
        row.instance_type or "",
        row.region,
    )


def _cheapest_of_each_type(rows: Iterable[InstanceTypeInfo]) -> list[InstanceTypeInfo]:
    kept: dict[tuple[str, str | None, float], InstanceTypeInfo] = {}
    for row in rows:
        kept.setdefault((row.cloud, row.instance_type, row.accelerator_count), row)
    return list(kept.values())


def _whole(count: float) -> float:
    """A whole number as int, so that it prints as `8` and compares with one."""
    return int(count) if count == int(count) else count
