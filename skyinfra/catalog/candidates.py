"""From what a task asks to the places where it could run, cheapest first.

For each alternative and each cloud the cheapest machine type that fits is taken, then every region (for spot and for
GCP: every zone) that sells it. What is blocked is left out *before* the type is chosen, so a type that is short
everywhere makes room for the next. A type is chosen by on-demand price when no accelerator is asked for, as spot
prices of general machines say little about a machine; unless a limit on the price is set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from skyinfra.catalog.ask import Ask, asks_of
from skyinfra.catalog.catalog import Catalog, matching_shapes, placed_rows
from skyinfra.catalog.defaults import in_default_family, with_defaults
from skyinfra.catalog.offers import Offer
from skyinfra.catalog.table import Table

if TYPE_CHECKING:
    from skyinfra.model.resources import Resources

__all__ = ["Candidate", "candidates_of", "is_buyable"]

_BY_ZONE = ("gcp",)  # clouds where a machine type is tried zone by zone, spot or not

Blocked = Callable[["Candidate"], bool]


@dataclass(frozen=True, slots=True)
class Candidate:
    """One place where one node could be had: an offer, the zone to try (None: any of the region), how it is bought."""

    asked: Resources
    offer: Offer
    zone: str | None
    spot: bool
    preference: int = 0  #: place in an `ordered` list; 0 elsewhere

    @property
    def hourly(self) -> float | None:
        """USD per hour of one node; None = not known."""
        return self.offer.hourly(self.spot)

    @property
    def place(self) -> tuple[str, str]:
        """Cloud and region."""
        return self.offer.cloud, self.offer.region

    @property
    def key(self) -> tuple[Any, ...]:
        """What makes two candidates the same."""
        o = self.offer
        return o.cloud, o.instance_type, o.accelerator, o.accelerator_count, o.region, self.zone, self.spot

    def resources(self) -> Resources:
        """What was asked, made launchable: cloud, machine type, accelerators, region and zone filled in."""
        from skyinfra.model.clouds import CLOUD_REGISTRY

        offer = self.offer
        filled: dict[str, Any] = {
            "cloud": CLOUD_REGISTRY.from_str(offer.cloud),
            "instance_type": offer.instance_type,
            "region": offer.region or None,
            "zone": self.zone,
        }
        if offer.accelerator is not None:
            count = offer.accelerator_count
            filled["accelerators"] = {offer.accelerator: int(count) if count == int(count) else count}
        return self.asked.copy(**filled)


def candidates_of(
    catalog: Catalog, alternatives: Iterable[Resources], blocked: Sequence[Resources] = ()
) -> list[Candidate]:
    """Candidates of a task's alternatives (a list is `ordered`: earlier ones come first), best first."""
    ordered = isinstance(alternatives, list)
    found: dict[tuple[Any, ...], Candidate] = {}

    def is_blocked(candidate: Candidate) -> bool:
        if not blocked:
            return False
        resources = candidate.resources()
        return any(resources.should_be_blocked_by(one) for one in blocked)

    for number, asked in enumerate(alternatives):
        for ask in asks_of(asked):
            for cloud in catalog.asked_clouds(ask):
                for candidate in _in_cloud(catalog, cloud, ask, asked, number if ordered else 0, is_blocked):
                    found.setdefault(candidate.key, candidate)
    return sorted(found.values(), key=_rank)


def is_buyable(offer: Offer, ask: Ask) -> bool:
    """Whether an offer can be bought as asked within the limit. Without a known price only a type named by the user
    can: it is not for us to say that what they know does not exist."""
    hourly = offer.hourly(ask.spot)
    if hourly is None:
        return ask.instance_type is not None and ask.max_hourly_cost is None
    return ask.max_hourly_cost is None or hourly <= ask.max_hourly_cost


def _in_cloud(
    catalog: Catalog, cloud: str, ask: Ask, asked: Resources, preference: int, is_blocked: Blocked
) -> list[Candidate]:
    """Candidates of the cheapest machine type that has any."""
    for offers in _types(catalog, cloud, ask):
        places = [
            candidate
            for offer in offers
            if is_buyable(offer, ask)
            for zone in _zones_to_try(offer, ask)
            if not is_blocked(candidate := Candidate(asked, offer, zone, ask.spot, preference))
        ]
        if places:
            return places
    return []


def _types(catalog: Catalog, cloud: str, ask: Ask) -> Iterator[Sequence[Offer]]:
    """The offers of each machine type that fits, cheapest type first."""
    if catalog.live(cloud) is not None:
        by_type: dict[str, list[Offer]] = {}
        for offer in catalog.matches(ask, cloud):
            by_type.setdefault(offer.instance_type, []).append(offer)
        yield from by_type.values()
        return
    table, closed = catalog.table(cloud), with_defaults(ask)
    by_spot = ask.spot and (ask.wants_accelerator or ask.max_hourly_cost is not None)
    shapes = matching_shapes(table, closed)
    if closed.instance_type is None and not closed.wants_accelerator:
        general = [shape for shape in shapes if in_default_family(cloud, table.shapes[shape])]
        for _, rows in _priced_types(table, closed, general, by_spot):
            yield [table.offer(row) for row in rows]
        shapes = sorted(set(shapes) - set(general))
    for _, rows in _priced_types(table, closed, shapes, by_spot):
        yield [table.offer(row) for row in rows]


def _priced_types(table: Table, ask: Ask, shapes: list[int], by_spot: bool) -> list[tuple[float, Sequence[int]]]:
    """Rows of each shape where the ask wants them, the shapes by their lowest price."""
    column = table.spot_of if by_spot else table.price_of
    groups: list[tuple[float, Sequence[int]]] = []
    for shape in shapes:
        rows = placed_rows(table, ask, [shape])
        if rows:
            known = [price for row in rows if (price := column[row]) == price]  # NaN marks the unknown
            groups.append((min(known, default=float("inf")), rows))
    groups.sort(key=lambda group: group[0])
    return groups


def _zones_to_try(offer: Offer, ask: Ask) -> Sequence[str | None]:
    if ask.zone is not None:
        return (ask.zone,)
    if offer.zones and (ask.spot or offer.cloud in _BY_ZONE):
        return offer.zones
    return (None,)


def _rank(candidate: Candidate) -> tuple[Any, ...]:
    hourly, offer = candidate.hourly, candidate.offer
    price = float("inf") if hourly is None else hourly
    place = (offer.cloud, offer.instance_type, offer.region, candidate.zone or "")
    return candidate.preference, price, *place, offer.accelerator or "", offer.accelerator_count
