from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skyinfra.catalog.ask import Ask, Bound, asks_of
from skyinfra.catalog.catalog import Catalog
from skyinfra.catalog.matching import shape_fits
from skyinfra.catalog.offers import Offer
from skyinfra.catalog.pool import PoolCatalog
from skyinfra.catalog.table import Shape, Table
from skyinfra.model.resources import Resources


def naive(offers: list[Offer], ask: Ask) -> set[Offer]:
    """The same question, answered row by row."""

    def fits(o: Offer) -> bool:
        shape = Shape.of(o)
        price = o.spot_price if ask.spot else o.price
        return (
            shape_fits(shape, ask)
            and ask.region in (None, o.region)
            and (ask.max_hourly_cost is None or (price is not None and price <= ask.max_hourly_cost))
        )

    return {o for o in offers if fits(o)}


amounts = st.sampled_from([1.0, 2.0, 4.0, 8.0])
prices = st.none() | st.sampled_from([0.5, 1.0, 2.0, 4.0])
offers = st.builds(
    lambda size, gpu, count, region, price, spot: Offer(
        "aws", f"t{size:g}{gpu}{count:g}", size, size * 4, gpu, count if gpu else 0.0, None, region, (), price, spot
    ),
    amounts,
    st.sampled_from([None, "A100", "T4"]),
    st.sampled_from([1.0, 8.0]),
    st.sampled_from(["r1", "r2", "r3"]),
    prices,
    prices,
)
bounds = st.none() | st.builds(Bound, amounts, st.booleans())
asks = st.builds(
    lambda gpu, count, cpus, region, spot, cap: Ask(
        region=region, cpus=cpus, accelerator=gpu, count=count if gpu else 0, spot=spot, max_hourly_cost=cap
    ),
    st.sampled_from([None, "A100", "a100", "T4"]),
    st.sampled_from([1, 8]),
    bounds,
    st.sampled_from([None, "r1", "r2", "r9"]),
    st.booleans(),
    st.none() | st.sampled_from([1.0, 3.0]),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(offers, max_size=30), asks)
def test_the_indexed_answer_is_the_scanned_one_in_order_of_price(rows: list[Offer], ask: Ask) -> None:
    found = list(Catalog({"aws": Table.build("aws", rows)}).fits(ask))
    assert set(found) == naive(rows, ask)
    known = [price for one in found if (price := one.hourly(ask.spot)) is not None]
    assert known == sorted(known)
    unknown_from = next((n for n, one in enumerate(found) if one.hourly(ask.spot) is None), len(found))
    assert all(one.hourly(ask.spot) is None for one in found[unknown_from:])


@settings(max_examples=50, deadline=None)
@given(st.lists(offers, max_size=20))
def test_a_table_comes_back_from_its_bytes_row_by_row(rows: list[Offer]) -> None:
    table = Table.build("aws", rows)
    again = Table.load("aws", table.dump())
    assert [again.offer(n) for n in range(len(again))] == [table.offer(n) for n in range(len(table))]
    assert sorted(map(repr, rows)) == sorted(repr(table.offer(n)) for n in range(len(table)))


@pytest.mark.parametrize(
    "harm", [lambda b: b[:-1], lambda b: b"x" + b[1:], lambda b: b[:30] + b"!" + b[31:], lambda b: b""]
)
def test_a_torn_or_changed_table_is_refused(harm: Any, offer: Any) -> None:
    with pytest.raises(ValueError, match="not whole"):
        Table.load("aws", harm(Table.build("aws", [offer("aws", "m")]).dump()))


def test_accelerator_names_match_in_any_case(shipped: Catalog) -> None:
    found = [o.instance_type for o in shipped.fits(next(asks_of(Resources(accelerators="a100-80gb:8"))))]
    assert "p4de.24xlarge" in found


def test_a_tpu_slice_is_found_by_both_of_its_names(shipped: Catalog) -> None:
    by_product = [*shipped.fits(next(asks_of(Resources(accelerators="tpu-v5litepod-8"))))]
    assert by_product == [*shipped.fits(next(asks_of(Resources(accelerators="tpu-v5e-8"))))] != []
    assert {o.instance_type for o in by_product} == {"v5litepod-8"}


def test_memory_asks_take_devices_by_what_they_are_sold_as(shipped: Catalog) -> None:
    ask = Ask(accelerator_memory=Bound(24, at_least=True), count=1)
    assert {"A10G", "L4", "A100"} <= {o.accelerator for o in shipped.fits(ask)}  # an A10G reports 22.4 GiB
    assert "T4" not in {o.accelerator for o in shipped.fits(ask)}


def test_an_unknown_price_is_never_within_a_limit(offer: Any, catalog_of: Any) -> None:
    catalog = catalog_of(offer("aws", "a", price=None), offer("aws", "b", price=2.0))
    assert [o.instance_type for o in catalog.fits(Ask(max_hourly_cost=1e9))] == ["b"]


def test_zones_are_whole_names_on_gcp_and_are_filtered_by(shipped: Catalog) -> None:
    ask = Ask(cloud="gcp", region="us-central1", zone="us-central1-c", accelerator="A100-80GB", count=8)
    assert [o.region for o in shipped.fits(ask)] == ["us-central1"]
    wrong = Ask(cloud="gcp", region="us-central1", zone="us-central1-b", accelerator="A100-80GB", count=8)
    assert not [*shipped.fits(wrong)]


def test_a_lettered_aws_zone_is_not_refused_by_zone_ids(shipped: Catalog) -> None:
    """Letters name other zones in each account, ids the same ones: the shipped ids cannot speak for a letter."""
    ask = Ask(cloud="aws", zone="us-east-1b", accelerator="A100", count=8)
    assert {o.region for o in shipped.fits(ask)} == {"us-east-1"}


def test_a_pool_offers_the_part_of_a_machine_that_is_asked_for(offer: Any) -> None:
    host = offer("ssh", "host-1", cpus=64, gib=512, gpu="H100", count=8, price=0.0)
    catalog = Catalog(live={"ssh": PoolCatalog("ssh", [host])})
    [found] = catalog.fits(Ask(accelerator="h100", count=2, cpus=Bound(8), memory=Bound(4, True, True)))
    assert (found.accelerator, found.accelerator_count, found.price) == ("H100", 2, 0.0)
    assert not [*catalog.fits(Ask(accelerator="H100", count=9))]
    [plain] = catalog.fits(Ask(spot=True))
    assert plain.accelerator is None


def test_matches_are_a_sequence_without_making_every_offer(shipped: Catalog) -> None:
    matches = shipped.matches(Ask(cpus=Bound(8, True)), "aws")
    assert len(matches) > 10
    assert [*itertools.islice(matches, 2)] == [matches[0], matches[1]] == [*matches[:2]]


def test_only_narrows_clouds_and_keeps_the_data(shipped: Catalog) -> None:
    narrowed = shipped.only(["AWS"])
    assert narrowed.clouds == ("aws",)
    assert {o.cloud for o in narrowed.fits(Ask(accelerator="A100", count=8))} == {"aws"}


def test_a_cloud_without_a_catalog_is_refused_at_load() -> None:
    with pytest.raises(KeyError):
        Catalog.load(["vast"])


def test_local_disks_are_asked_for_by_size_and_unknown_ones_do_not_count(offer: Any, catalog_of: Any) -> None:
    big = dataclasses.replace(offer("aws", "i4i.large"), local_disk_gb=468.0)
    catalog = catalog_of(big, offer("aws", "m6i.large"))
    assert [o.instance_type for o in catalog.fits(next(asks_of(Resources(local_disk="nvme:300+"))))] == ["i4i.large"]
    assert not [*catalog.fits(next(asks_of(Resources(local_disk="500+"))))]
    named = Resources(infra="aws", instance_type="m6i.large", local_disk="nvme")
    assert [o.instance_type for o in catalog.fits(next(asks_of(named)))] == ["m6i.large"]
