"""The catalog: every cloud's offers behind one question, "which offers fit this ask".

Tables (`sources`) are loaded when a cloud is first asked about; live catalogs are asked each time. Nothing here
chooses: an answer is all that fits, cheapest first, and `candidates` and the optimizer decide.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import overload

from skyinfra.catalog.ask import Ask
from skyinfra.catalog.matching import shape_fits
from skyinfra.catalog.offers import LiveCatalog, Offer
from skyinfra.catalog.sources import Age, Sources
from skyinfra.catalog.table import Table

__all__ = ["Catalog", "Matches", "matching_rows", "matching_shapes", "placed_rows", "zone_fits"]


class Matches(Sequence[Offer]):
    """Rows of one table that fit, cheapest first (unknown prices last); an `Offer` is made when it is looked at."""

    def __init__(self, table: Table, rows: Sequence[int]) -> None:
        self.table = table
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Offer: ...
    @overload
    def __getitem__(self, index: slice) -> Matches: ...
    def __getitem__(self, index: int | slice) -> Offer | Matches:
        if isinstance(index, slice):
            return Matches(self.table, self.rows[index])
        return self.table.offer(self.rows[index])


class Catalog:
    """Offers of some clouds."""

    def __init__(self, tables: Mapping[str, Table] = {}, live: Mapping[str, LiveCatalog] = {}) -> None:
        self._tables = dict(tables)
        self._sources: Sources | None = None
        self._live = dict(live)
        self.clouds: tuple[str, ...] = tuple(sorted({*self._tables, *self._live}))

    @classmethod
    def load(
        cls, clouds: Iterable[str] | None = None, *, home: Path | None = None, live: Iterable[LiveCatalog] = ()
    ) -> Catalog:
        """The catalog of some clouds (None: all that have data), reading refreshed data of a state folder first.

        A cloud's file is read when it is first asked about. Raises `KeyError` for a cloud with neither data nor a
        live catalog.
        """
        return cls.from_sources(Sources.of_home(home), clouds, live)

    @classmethod
    def default(cls) -> Catalog:
        """The catalog of the state folder that this process works with."""
        from skyinfra.model.home import Home

        return cls.load(home=Home.from_env().root)

    @classmethod
    def from_sources(
        cls, sources: Sources, clouds: Iterable[str] | None = None, live: Iterable[LiveCatalog] = ()
    ) -> Catalog:
        """`load`, with the folders given."""
        catalog = cls(live={one.cloud: one for one in live})
        wanted = [*sources.clouds(), *catalog._live] if clouds is None else [cloud.lower() for cloud in clouds]
        for cloud in wanted:
            if cloud not in catalog._live:
                sources.path(cloud)  # raises KeyError
        catalog._sources = sources
        catalog.clouds = tuple(sorted(set(wanted)))
        return catalog

    def only(self, clouds: Iterable[str]) -> Catalog:
        """The same data, restricted to some clouds."""
        narrowed = Catalog(self._tables, self._live)
        narrowed._sources = self._sources
        narrowed.clouds = tuple(cloud for cloud in self.clouds if cloud in {name.lower() for name in clouds})
        return narrowed

    def as_of(self, cloud: str) -> Age | None:
        """Since when a cloud's prices hold; None for a live catalog or one built in memory."""
        if cloud in self._live or self._sources is None:
            return None
        return self._sources.age(cloud)

    def live(self, cloud: str) -> LiveCatalog | None:
        """A cloud's live catalog, if it has one."""
        return self._live.get(cloud)

    def table(self, cloud: str) -> Table:
        """A cloud's table; raises `KeyError` when it has none, `ValueError` when its file is malformed."""
        if cloud not in self._tables:
            if self._sources is None:
                raise KeyError(cloud)
            self._tables[cloud] = self._sources.table(cloud)
        return self._tables[cloud]

    def asked_clouds(self, ask: Ask) -> Sequence[str]:
        """The clouds in which to look."""
        if ask.cloud is None:
            return self.clouds
        return (ask.cloud,) if ask.cloud in self.clouds else ()

    def matches(self, ask: Ask, cloud: str) -> Sequence[Offer]:
        """What fits in one cloud, cheapest first."""
        live = self._live.get(cloud)
        if live is not None:
            fitting = [offer for offer in live.offers(ask) if _place_fits(ask, offer)]
            return sorted(fitting, key=lambda offer: _last_if_unknown(offer.hourly(ask.spot)))
        table = self.table(cloud)
        return Matches(table, matching_rows(table, ask))

    def fits(self, ask: Ask) -> Iterator[Offer]:
        """What fits anywhere, cheapest first."""
        found = (self.matches(ask, cloud) for cloud in self.asked_clouds(ask))
        return heapq.merge(*found, key=lambda offer: _last_if_unknown(offer.hourly(ask.spot)))

    def everything(self, cloud: str) -> Iterator[Offer]:
        """All offers of a cloud, cheapest on demand first."""
        live = self._live.get(cloud)
        if live is not None:
            return iter(live.inventory())
        table = self.table(cloud)
        return (table.offer(row) for row in range(len(table)))


def matching_shapes(table: Table, ask: Ask) -> list[int]:
    """Shapes of a table that meet the hardware part of an ask."""
    if ask.instance_type is not None:
        found: Iterable[int] = table.by_type.get(ask.instance_type.lower(), ())
    elif ask.accelerator is not None:
        found = table.by_accelerator.get(ask.accelerator.lower(), ())
    else:
        found = range(len(table.shapes))
    return [number for number in found if shape_fits(table.shapes[number], ask)]


def matching_rows(table: Table, ask: Ask) -> Sequence[int]:
    """Rows of a table that fit an ask, in order of the price asked about."""
    rows = placed_rows(table, ask, matching_shapes(table, ask))
    if ask.max_hourly_cost is not None:
        prices, limit = table.spot_of if ask.spot else table.price_of, ask.max_hourly_cost
        rows = [row for row in rows if prices[row] <= limit]  # an unknown price (NaN) compares false: not within
    if not ask.spot:
        return rows
    rank, order = table.spot_rank, table.spot_order
    return [order[place] for place in sorted([rank[row] for row in rows])]


def placed_rows(table: Table, ask: Ask, shapes: list[int]) -> Sequence[int]:
    """Rows of some shapes that lie where the ask wants them, in on-demand order."""
    if ask.region is not None:
        number = table.region_ids.get(ask.region.lower())
        placed = [] if number is None else _rows_in_region(table, shapes, number)
    else:
        placed = []
        for shape in shapes:
            placed.extend(table.rows_of_shape(shape))
        placed.sort()
    if ask.zone is not None:
        placed = [row for row in placed if zone_fits(ask.zone, table.zones(row), table.regions[table.region_of[row]])]
    return placed


def _rows_in_region(table: Table, shapes: list[int], region: int) -> list[int]:
    """Rows of some shapes in one region; whichever of the two lists is the shorter way is walked."""
    if len(shapes) == 1:
        return [row for row in table.rows_of_shape(shapes[0]) if table.region_of[row] == region]
    wanted, shape_of = set(shapes), table.shape_of
    return [row for row in table.rows_of_region(region) if shape_of[row] in wanted]


def _place_fits(ask: Ask, offer: Offer) -> bool:
    if ask.region is not None and ask.region != offer.region:
        return False
    return ask.zone is None or zone_fits(ask.zone, offer.zones, offer.region)


def zone_fits(zone: str, zones: tuple[str, ...], region: str) -> bool:
    """Whether a zone is one of an offer's. AWS's letters name other zones in every account: its ids cannot refuse them,
    and an offer that names no zone refuses none of its region's."""
    if zone in zones:
        return True
    lettered = zone.startswith(region) and zone[len(region) :].lstrip("-").isalnum()
    named_alike = any(known.startswith(region) for known in zones)
    return lettered and not named_alike


def _last_if_unknown(price: float | None) -> float:
    return float("inf") if price is None else price
