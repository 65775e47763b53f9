"""Why a task does not fit: for each family of offers the requirement that ruled it out, and the nearest that would do.

A family is one accelerator of one cloud, or the machines without accelerators of one cloud. The requirements are
looked at in a fixed order (kind, number, vCPUs, memory, disks, place, way of buying, price, blocks); the first one that
leaves nothing is the reason, and the nearest offer is taken from what was left before it.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from skyinfra.catalog.ask import Ask, Bound, asks_of
from skyinfra.catalog.candidates import candidates_of, is_buyable
from skyinfra.catalog.catalog import Catalog, zone_fits
from skyinfra.catalog.defaults import with_defaults
from skyinfra.catalog.matching import accelerator_fits, count_fits, disk_fits, kind_fits
from skyinfra.catalog.offers import Offer
from skyinfra.catalog.table import Shape

if TYPE_CHECKING:
    from skyinfra.model.resources import Resources

__all__ = ["REQUIREMENTS", "Refusal", "explain", "why_not"]


REQUIREMENTS = (
    "cloud",
    "instance_type",
    "accelerator",
    "count",
    "cpus",
    "memory",
    "local_disk",
    "region",
    "zone",
    "spot",
    "price",
    "max_hourly_cost",
    "blocked",
)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why one family of offers is out."""

    cloud: str
    family: str  #: an accelerator's name, "cpu", or the machine type that was named
    requirement: str  #: one of `REQUIREMENTS`
    asked: str
    nearest: Offer | None  #: the nearest offer that would do if the requirement were met by it
    text: str  #: one line
    suggestion: str | None = None  #: what to try instead, as a change to the task


def why_not(
    catalog: Catalog, alternatives: Iterable[Resources], *, num_nodes: int = 1, blocked: Sequence[Resources] = ()
) -> list[Refusal]:
    """A refusal for each family in which no alternative fits; families that fit are left out."""
    refusals: dict[tuple[str, str, str], Refusal] = {}
    for asked in alternatives:
        for ask in asks_of(asked):
            clouds = catalog.clouds if ask.cloud is None else (ask.cloud,)
            for cloud in clouds:
                for refusal in _refusals_of(catalog, cloud, ask, asked, num_nodes, blocked):
                    refusals.setdefault((refusal.cloud, refusal.family, refusal.text), refusal)
    return list(refusals.values())


def explain(task_name: str | None, refusals: Sequence[Refusal]) -> str:
    """The refusals as text: a first line, then one line each."""
    whose = f"task {task_name!r}" if task_name else "the task"
    if not refusals:
        return f"Nothing that is allowed fits {whose}."
    return "\n".join([f"Nothing that is allowed fits {whose}:", *(f"  {one.cloud}: {one.text}" for one in refusals)])


def _refusals_of(
    catalog: Catalog, cloud: str, ask: Ask, asked: Resources, num_nodes: int, blocked: Sequence[Resources]
) -> Iterator[Refusal]:
    if cloud not in catalog.clouds:
        text = "no offers are known for this cloud, or it is not enabled"
        yield Refusal(cloud, ask.what, "cloud", cloud, None, text)
        return
    families = _families(catalog, cloud, ask)
    if not families:
        yield _no_such_kind(catalog, cloud, ask)
    for family, offers in families.items():
        yield from _refusal(_Family(cloud, family, with_defaults(ask), num_nodes), offers)
    if families and blocked:
        here = catalog.only([cloud])
        if candidates_of(here, [asked]) and not candidates_of(here, [asked], blocked):
            text = f"every place that offers {ask.what} is blocked: it failed there a short while ago"
            yield Refusal(cloud, next(iter(families)), "blocked", ask.what, None, text, "wait, or --retry-until-up")


def _families(catalog: Catalog, cloud: str, ask: Ask) -> dict[str, list[Offer]]:
    """Offers of the kind that is asked for, by family, whatever their number, size, place and price."""
    families: dict[str, list[Offer]] = {}
    for offer in catalog.everything(cloud):
        if ask.instance_type is not None:
            if offer.instance_type.lower() == ask.instance_type.lower():
                families.setdefault(offer.instance_type, []).append(offer)
        elif accelerator_fits(Shape.of(offer), ask):
            families.setdefault(offer.accelerator or "cpu", []).append(offer)
    return families


def _no_such_kind(catalog: Catalog, cloud: str, ask: Ask) -> Refusal:
    """The cloud has nothing of that kind: the likeliest meant name, else the same thing in another cloud."""
    named = ask.instance_type or ask.accelerator
    if named is None:
        text = (
            f"no accelerators with {ask.what.rpartition(':')[0]} of memory" if ask.wants_accelerator else "no machines"
        )
        return Refusal(cloud, ask.what, "accelerator", ask.what, None, text)
    requirement = "instance_type" if ask.instance_type else "accelerator"
    here = list(catalog.everything(cloud))
    names = {(o.instance_type if ask.instance_type else o.accelerator or "").lower(): o for o in reversed(here)}
    close = difflib.get_close_matches(named.lower(), [name for name in names if name], n=1, cutoff=0.75)
    elsewhere = _elsewhere(catalog, cloud, ask)
    if elsewhere is not None:
        where = f"{elsewhere.cloud} has {_sold(elsewhere, ask)}"
        suggestion = f"infra: {elsewhere.cloud}" if ask.cloud is not None else None
        return Refusal(
            cloud, named, requirement, named, elsewhere, _with(f"no {named}; {where}", suggestion), suggestion
        )
    if close:
        nearest = names[close[0]]
        name = nearest.instance_type if ask.instance_type else nearest.accelerator
        return Refusal(
            cloud,
            named,
            requirement,
            named,
            nearest,
            f"no {named}; the nearest name is {name}",
            f"{requirement}: {name}",
        )
    return Refusal(cloud, named, requirement, named, None, f"no {named}")


def _elsewhere(catalog: Catalog, cloud: str, ask: Ask) -> Offer | None:
    """The cheapest offer that fits in any other cloud, its place left open."""
    open_ask = replace(ask, cloud=None, region=None, zone=None)
    others = [name for name in catalog.clouds if name != cloud]
    return next(catalog.only(others).fits(open_ask), None)


@dataclass(frozen=True, slots=True)
class _Family:
    """What is being explained."""

    cloud: str
    name: str
    ask: Ask
    num_nodes: int

    def refuse(
        self, requirement: str, asked: object, nearest: Offer | None, text: str, suggestion: str | None = None
    ) -> Refusal:
        return Refusal(self.cloud, self.name, requirement, str(asked), nearest, text, suggestion)


_Check = tuple[Callable[[Offer, Ask], bool], Callable[[_Family, list[Offer]], Refusal]]


def _refusal(family: _Family, offers: list[Offer]) -> Iterator[Refusal]:
    """The first requirement that leaves nothing, if any does."""
    left = offers
    for fits, refuse in _CHECKS:
        fitting = [offer for offer in left if fits(offer, family.ask)]
        if not fitting:
            yield refuse(family, left)
            return
        left = fitting


def _refuse_kind(family: _Family, left: list[Offer]) -> Refusal:
    """Only a machine type that was named can have the wrong kind: otherwise the kind is what makes the family."""
    nearest = min(left, key=lambda o: _cost(o, family.ask))
    has = "no accelerator"
    if nearest.accelerator is not None:
        has = f"{nearest.accelerator}:{nearest.accelerator_count:g}"
    wanted = family.ask.what if family.ask.wants_accelerator else "no accelerator"
    text = f"{nearest.instance_type} is known with {has}, not with {wanted}"
    suggestion = None if nearest.accelerator is None else f"accelerators: {has}"
    return family.refuse("accelerator", wanted, nearest, _with(text, suggestion), suggestion)


def _refuse_count(family: _Family, left: list[Offer]) -> Refusal:
    ask = family.ask
    largest = min(left, key=lambda o: (-o.accelerator_count, _cost(o, ask)))
    if largest.accelerator_count < ask.count:
        nodes = ask.count * family.num_nodes / largest.accelerator_count
        text = f"no {family.name}:{ask.count:g}; the largest is {_sold(largest, ask)}"
        suggestion = None
        if nodes == int(nodes):
            suggestion = f"num_nodes: {nodes:g} with accelerators: {family.name}:{largest.accelerator_count:g}"
        return family.refuse("count", f"{ask.count:g}", largest, _with(text, suggestion), suggestion)
    more = [o for o in left if o.accelerator_count > ask.count]
    nearest = min(more, key=lambda o: (o.accelerator_count, _cost(o, ask)))
    suggestion = f"accelerators: {family.name}:{nearest.accelerator_count:g}"
    text = f"no {family.name}:{ask.count:g}; the next is {_sold(nearest, ask)}"
    return family.refuse("count", f"{ask.count:g}", nearest, _with(text, suggestion), suggestion)


def _refuse_cpus(family: _Family, left: list[Offer]) -> Refusal:
    return _refuse_amount(family, left, "cpus", family.ask.cpus, lambda o: o.vcpus, "vCPUs")


def _refuse_memory(family: _Family, left: list[Offer]) -> Refusal:
    return _refuse_amount(family, left, "memory", family.ask.memory, lambda o: o.memory_gib, "GiB of memory")


def _refuse_amount(
    family: _Family,
    left: list[Offer],
    name: str,
    bound: Bound | None,
    amount: Callable[[Offer], float | None],
    unit: str,
) -> Refusal:
    """The machine whose amount is nearest to what is asked for."""
    assert bound is not None  # without a bound nothing is refused for its amount

    def short(offer: Offer) -> tuple[float, float]:
        limit = bound.value * (offer.vcpus or 0) if bound.per_vcpu else bound.value
        has = amount(offer)
        return (float("inf") if has is None else abs(has - limit)), _cost(offer, family.ask)

    nearest = min(left, key=short)
    has = amount(nearest)
    if has is None:
        return family.refuse(name, bound, nearest, f"how many {unit} {nearest.instance_type} has is not known")
    suggestion = f"{name}: {has:g}{'+' if bound.at_least and has < bound.value else ''}"
    kind = family.ask.what if family.ask.wants_accelerator or family.ask.instance_type else "machine"
    text = f"no {kind} with {bound} {unit}; the nearest has {has:g}: {_sold(nearest, family.ask)}"
    return family.refuse(name, bound, nearest, _with(text, suggestion), suggestion)


def _refuse_disk(family: _Family, left: list[Offer]) -> Refusal:
    if all(offer.local_disk_gb is None for offer in left):
        text = f"the sizes of local disks are not known for {family.cloud}; a named instance_type is taken as it is"
        return family.refuse("local_disk", family.ask.local_disk, None, text)
    return _refuse_amount(
        family, left, "local_disk", family.ask.local_disk, lambda o: o.local_disk_gb, "GB of local disk"
    )


def _refuse_region(family: _Family, left: list[Offer]) -> Refusal:
    nearest = min(left, key=lambda o: (not _same_continent(o.region, family.ask.region or ""), _cost(o, family.ask)))
    asked = family.ask.region
    text = f"{family.ask.what} is not offered in {asked} as far as is known; {_where(nearest, family.ask)}"
    suggestion = f"infra: {family.cloud}/{nearest.region}"
    return family.refuse("region", asked, nearest, _with(text, suggestion), suggestion)


def _refuse_zone(family: _Family, left: list[Offer]) -> Refusal:
    nearest = min(left, key=lambda o: _cost(o, family.ask))
    zones = ", ".join(nearest.zones)
    text = f"{family.ask.what} is not in zone {family.ask.zone}; {nearest.region} has it in {zones}"
    return family.refuse("zone", family.ask.zone, nearest, text, f"infra: {family.cloud}/{nearest.region}")


def _refuse_price(family: _Family, left: list[Offer]) -> Refusal:
    ask = family.ask
    known = [o for o in left if o.hourly(ask.spot) is not None]
    if known:
        nearest = min(known, key=lambda o: _cost(o, ask))
        suggestion = f"max_hourly_cost: {math.ceil(_cost(nearest, ask) * 100) / 100:.2f}"
        text = f"nothing within ${ask.max_hourly_cost:g}/h; the cheapest is {_sold(nearest, ask)}"
        return family.refuse("max_hourly_cost", ask.max_hourly_cost, nearest, _with(text, suggestion), suggestion)
    way, other = ("spot", "on demand") if ask.spot else ("on-demand", "spot")
    nearest = min(left, key=lambda o: _cost(o, replace(ask, spot=not ask.spot)))
    if nearest.hourly(not ask.spot) is None:
        text = f"no price is known for {_thing(nearest)}; catalog/overrides.yaml in the state folder can name one"
        return family.refuse("price", way, None, text)
    suggestion = f"use_spot: {'false' if ask.spot else 'true'}"
    price = nearest.hourly(not ask.spot)
    text = f"no {way} price is known for {_thing(nearest)}; {other} it is ${price:.2f}/h"
    return family.refuse("spot" if ask.spot else "price", way, nearest, _with(text, suggestion), suggestion)


_CHECKS: Sequence[_Check] = (
    (lambda o, ask: kind_fits(Shape.of(o), ask), _refuse_kind),
    (lambda o, ask: not ask.wants_accelerator or count_fits(Shape.of(o), ask), _refuse_count),
    (lambda o, ask: ask.cpus is None or ask.cpus.allows(o.vcpus), _refuse_cpus),
    (lambda o, ask: ask.memory is None or ask.memory.allows(o.memory_gib, o.vcpus), _refuse_memory),
    (lambda o, ask: disk_fits(Shape.of(o), ask), _refuse_disk),
    (lambda o, ask: ask.region is None or ask.region.lower() == o.region.lower(), _refuse_region),
    (lambda o, ask: ask.zone is None or zone_fits(ask.zone, o.zones, o.region), _refuse_zone),
    (is_buyable, _refuse_price),
)


def _thing(offer: Offer) -> str:
    if offer.accelerator is None:
        return offer.instance_type
    return f"{offer.accelerator}:{offer.accelerator_count:g} on {offer.instance_type}"


def _price(offer: Offer, ask: Ask) -> str:
    hourly = offer.hourly(ask.spot)
    return "(no price known)" if hourly is None else f"at ${hourly:.2f}/h{' spot' if ask.spot else ''}"


def _sold(offer: Offer, ask: Ask) -> str:
    return f"{_thing(offer)} {_price(offer, ask)}"


def _where(offer: Offer, ask: Ask) -> str:
    return f"the nearest is {offer.region} {_price(offer, ask)}"


def _cost(offer: Offer, ask: Ask) -> float:
    hourly = offer.hourly(ask.spot)
    return float("inf") if hourly is None else hourly


def _with(text: str, suggestion: str | None) -> str:
    return text if suggestion is None else f"{text}; try {suggestion}"


def _same_continent(region: str, other: str) -> bool:
    """Region names begin with a continent in every cloud but Azure, where they may end the other way."""
    return region[:2] == other[:2]
