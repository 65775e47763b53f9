from __future__ import annotations

import inspect

import pytest

from skyinfra.catalog.catalog import Catalog
from skyinfra.catalog.listing import list_accelerator_counts, list_accelerators


def test_gpus_are_listed_by_name_each_type_once_at_its_cheapest(shipped: Catalog) -> None:
    listed = list_accelerators(catalog=shipped)
    assert list(listed) == sorted(listed)
    assert not any(name.startswith(("tpu-", "Trainium", "Inferentia")) for name in listed)
    [p4d] = [row for row in listed["A100"] if row.instance_type == "p4d.24xlarge"]
    assert (p4d.cloud, p4d.region, p4d.accelerator_count, p4d.memory) == ("AWS", "us-west-2", 8, 1152.0)


def test_all_regions_lists_every_place(shipped: Catalog) -> None:
    rows = list_accelerators(name_filter="^A100$", clouds="aws", all_regions=True, catalog=shipped)["A100"]
    assert {row.region for row in rows} == {"us-east-1", "us-west-2", "eu-west-1"}


def test_filters_are_expressions_and_mind_case_unless_told(shipped: Catalog) -> None:
    assert list_accelerators(name_filter="a100", catalog=shipped) == {}
    assert set(list_accelerators(name_filter="a100", case_sensitive=False, catalog=shipped)) == {"A100", "A100-80GB"}
    by_region = list_accelerators(region_filter="^europe-", quantity_filter=8, catalog=shipped)
    assert {row.region for rows in by_region.values() for row in rows} == {"europe-west4"}
    assert {row.accelerator_count for rows in by_region.values() for row in rows} == {8}
    with pytest.raises(ValueError, match="not a regular expression"):
        list_accelerators(name_filter="(", catalog=shipped)
    with pytest.raises(KeyError):
        list_accelerators(clouds=["aws", "nonesuch"], catalog=shipped)


def test_what_has_no_price_is_listed_only_on_request(shipped: Catalog) -> None:
    named = {"name_filter": "^H200$", "clouds": "gcp", "catalog": shipped}
    assert list_accelerators(**named) == {}  # type: ignore[arg-type]
    [row] = list_accelerators(**named, require_price=False)["H200"]  # type: ignore[arg-type]
    assert (row.price, row.spot_price) == (None, None)


def test_counts_are_sorted_numbers(shipped: Catalog) -> None:
    counts = list_accelerator_counts(gpus_only=False, catalog=shipped)
    assert counts["A100"] == [1, 2, 4, 8, 16]
    assert counts["A10"][:3] == [0.167, 0.333, 0.5]
    assert counts["tpu-v5p-8"] == [1]


def test_parameters_are_skypilots_in_its_order() -> None:
    names = [
        p.name for p in inspect.signature(list_accelerators).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD
    ]
    assert names == [
        "gpus_only",
        "name_filter",
        "region_filter",
        "quantity_filter",
        "clouds",
        "case_sensitive",
        "all_regions",
        "require_price",
    ]
