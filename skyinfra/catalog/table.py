"""The offers of one cloud as columns and indexes: built once, kept as one flat file, loaded in milliseconds.

Rows lie in the order of their on-demand price (unknown last), so that every list of rows is a ranking without being
sorted again; a second order serves spot. What is equal in many rows (the machine's shape, the region, the zones) is
kept once. Objects are made only for the rows that someone looks at.
"""

from __future__ import annotations

import marshal
import math
import zlib
from array import array
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from skyinfra.catalog.offers import Offer
from skyinfra.catalog.tpus import chips_alias

__all__ = ["Shape", "Table"]

_MAGIC = b"skyinfra-offers-2\n"
_UNKNOWN = math.nan


class Shape(NamedTuple):
    """A machine type as hardware: what does not depend on where it is bought."""

    instance_type: str
    vcpus: float | None
    memory_gib: float | None
    accelerator: str | None
    accelerator_count: float
    accelerator_memory_gib: float | None
    local_disk_gb: float | None = None

    @classmethod
    def of(cls, offer: Offer) -> Shape:
        """The machine in an offer."""
        return cls(
            offer.instance_type,
            offer.vcpus,
            offer.memory_gib,
            offer.accelerator,
            offer.accelerator_count,
            offer.accelerator_memory_gib,
            offer.local_disk_gb,
        )


class Table:
    """Offers of one cloud. Read only once built; a row is a number."""

    def __init__(self, cloud: str, columns: dict[str, Any]) -> None:
        self.cloud = cloud
        self.shapes: list[Shape] = [Shape(*shape) for shape in columns["shapes"]]
        self.regions: list[str] = columns["regions"]
        self.zone_sets: list[tuple[str, ...]] = columns["zone_sets"]
        self.by_accelerator: dict[str, list[int]] = columns["by_accelerator"]  #: lower case -> shapes
        self.by_type: dict[str, list[int]] = columns["by_type"]  #: lower case -> shapes
        self.shape_of = _array("I", columns["shape_of"])
        self.region_of = _array("I", columns["region_of"])
        self.zones_of = _array("I", columns["zones_of"])
        self.price_of = _array("d", columns["price_of"])
        self.spot_of = _array("d", columns["spot_of"])
        self.spot_order = _array("I", columns["spot_order"])  #: spot rank -> row
        self.spot_rank = _array("I", columns["spot_rank"])  #: row -> spot rank
        self._rows_of_shape = _Groups(columns["rows_of_shape"])
        self._rows_of_region = _Groups(columns["rows_of_region"])
        self.region_ids = {name.lower(): number for number, name in enumerate(self.regions)}

    def __len__(self) -> int:
        return len(self.shape_of)

    def rows_of_shape(self, shape: int) -> Sequence[int]:
        """Rows that sell a shape, cheapest on demand first."""
        return self._rows_of_shape[shape]

    def rows_of_region(self, region: int) -> Sequence[int]:
        """Rows of a region, cheapest on demand first."""
        return self._rows_of_region[region]

    def zones(self, row: int) -> tuple[str, ...]:
        """Zones that a row names; empty = not known."""
        return self.zone_sets[self.zones_of[row]]

    def hourly(self, row: int, spot: bool) -> float | None:
        """The row's price in USD per hour; None = not known."""
        value = self.spot_of[row] if spot else self.price_of[row]
        return None if value != value else value  # NaN marks the unknown inside the columns only

    def offer(self, row: int) -> Offer:
        """The row as an object."""
        shape = self.shapes[self.shape_of[row]]
        name, vcpus, memory_gib, accelerator, count, accelerator_memory_gib, local_disk_gb = shape
        return Offer(
            self.cloud,
            name,
            vcpus,
            memory_gib,
            accelerator,
            count,
            accelerator_memory_gib,
            self.regions[self.region_of[row]],
            self.zones(row),
            self.hourly(row, False),
            self.hourly(row, True),
            local_disk_gb,
        )

    @classmethod
    def build(cls, cloud: str, offers: Iterable[Offer]) -> Table:
        """A table of offers, in any order."""
        return cls(cloud, _columns(offers))

    def dump(self) -> bytes:
        """The table as bytes that `load` takes."""
        columns = {
            "shapes": [tuple(shape) for shape in self.shapes],
            "regions": self.regions,
            "zone_sets": self.zone_sets,
            "by_accelerator": self.by_accelerator,
            "by_type": self.by_type,
            "rows_of_shape": self._rows_of_shape.dump(),
            "rows_of_region": self._rows_of_region.dump(),
        }
        for name in ("shape_of", "region_of", "zones_of", "price_of", "spot_of", "spot_order", "spot_rank"):
            columns[name] = getattr(self, name).tobytes()
        body = marshal.dumps(columns)
        return _MAGIC + zlib.crc32(body).to_bytes(4, "big") + body

    @classmethod
    def load(cls, cloud: str, data: bytes) -> Table:
        """The table of `dump`'s bytes; raises `ValueError` when they are not whole."""
        start = len(_MAGIC) + 4
        body = memoryview(data)[start:]
        if not data.startswith(_MAGIC) or zlib.crc32(body) != int.from_bytes(data[start - 4 : start], "big"):
            raise ValueError("not a table of this version, or not whole")
        return cls(cloud, marshal.loads(body))


class _Groups:
    """Numbers in groups, one after another in one array."""

    def __init__(self, dumped: tuple[bytes, bytes]) -> None:
        self._starts, self._members = _array("I", dumped[0]), _array("I", dumped[1])

    def __getitem__(self, group: int) -> Sequence[int]:
        return self._members[self._starts[group] : self._starts[group + 1]]

    def dump(self) -> tuple[bytes, bytes]:
        return self._starts.tobytes(), self._members.tobytes()


def _columns(offers: Iterable[Offer]) -> dict[str, Any]:
    rows = sorted(offers, key=lambda o: (_last_if_unknown(o.price), o.region, o.instance_type, o.accelerator or ""))
    shapes: dict[Shape, int] = {}
    regions: dict[str, int] = {}
    zone_sets: dict[tuple[str, ...], int] = {}
    shape_of, region_of, zones_of = array("I"), array("I"), array("I")
    for o in rows:
        shape_of.append(shapes.setdefault(Shape.of(o), len(shapes)))
        region_of.append(regions.setdefault(o.region, len(regions)))
        zones_of.append(zone_sets.setdefault(o.zones, len(zone_sets)))
    spot_order = sorted(range(len(rows)), key=lambda row: (_last_if_unknown(rows[row].spot_price), row))
    spot_rank = array("I", bytes(4 * len(rows)))
    for rank, row in enumerate(spot_order):
        spot_rank[row] = rank
    return {
        "shapes": list(shapes),
        "regions": list(regions),
        "zone_sets": list(zone_sets),
        **_shape_indexes(list(shapes)),
        "rows_of_shape": _grouped(shape_of, len(shapes)),
        "rows_of_region": _grouped(region_of, len(regions)),
        "shape_of": shape_of.tobytes(),
        "region_of": region_of.tobytes(),
        "zones_of": zones_of.tobytes(),
        "price_of": array("d", [_UNKNOWN if o.price is None else o.price for o in rows]).tobytes(),
        "spot_of": array("d", [_UNKNOWN if o.spot_price is None else o.spot_price for o in rows]).tobytes(),
        "spot_order": array("I", spot_order).tobytes(),
        "spot_rank": spot_rank.tobytes(),
    }


def _shape_indexes(shapes: list[Shape]) -> dict[str, dict[str, list[int]]]:
    by_accelerator: dict[str, list[int]] = {}
    by_type: dict[str, list[int]] = {}
    for number, shape in enumerate(shapes):
        by_type.setdefault(shape.instance_type.lower(), []).append(number)
        if shape.accelerator is None:
            continue
        by_accelerator.setdefault(shape.accelerator.lower(), []).append(number)
        if (alias := chips_alias(shape.accelerator)) is not None:
            by_accelerator.setdefault(alias, []).append(number)
    return {"by_accelerator": by_accelerator, "by_type": by_type}


def _grouped(group_of: array[int], groups: int) -> tuple[bytes, bytes]:
    members: list[list[int]] = [[] for _ in range(groups)]
    for row, group in enumerate(group_of):
        members[group].append(row)
    starts, flat = array("I", [0]), array("I")
    for group in members:
        flat.extend(group)
        starts.append(len(flat))
    return starts.tobytes(), flat.tobytes()


def _array(kind: str, data: bytes) -> array[Any]:
    column = array(kind)
    column.frombytes(data)
    return column


def _last_if_unknown(price: float | None) -> float:
    return math.inf if price is None else price
