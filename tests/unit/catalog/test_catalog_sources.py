from __future__ import annotations

import datetime
import io
import os
from pathlib import Path
from typing import Any

import pytest

from skyinfra.catalog.ask import Ask
from skyinfra.catalog.catalog import Catalog
from skyinfra.catalog.offers import COLUMNS, read_offers, write_offers
from skyinfra.catalog.refresh import store
from skyinfra.catalog.sources import PACKAGED, Sources
from skyinfra.model.exceptions import InvalidSkyPilotConfigError


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    (tmp_path / "catalog").mkdir()
    return Sources(tmp_path / "catalog", tmp_path / "cache")


@pytest.mark.parametrize("cloud", PACKAGED)
def test_shipped_data_has_an_age_and_no_zero_price(cloud: str, shipped: Catalog) -> None:
    age = shipped.as_of(cloud)
    assert age is not None
    assert not age.refreshed
    assert age.days(age.as_of + datetime.timedelta(days=3)) == 3
    offers = list(shipped.everything(cloud))
    assert len(offers) > 150
    assert all(o.price != 0 and o.spot_price != 0 and o.vcpus and o.memory_gib for o in offers)


@pytest.mark.parametrize("cloud", PACKAGED)
def test_what_is_written_reads_back_the_same(cloud: str, shipped: Catalog) -> None:
    text = io.StringIO()
    offers = list(shipped.everything(cloud))
    assert write_offers(offers, text) == len(offers)
    text.seek(0)
    assert list(read_offers(cloud, text)) == offers


def test_a_refreshed_file_wins_over_the_shipped_one_and_tells_its_age(
    sources: Sources, tmp_path: Path, offer: Any
) -> None:
    path = store("aws", tmp_path, [offer("aws", "x9.large", price=0.5)])
    os.utime(path, (86400 * 20000, 86400 * 20000))
    catalog = Catalog.from_sources(sources)
    assert [o.instance_type for o in catalog.everything("aws")] == ["x9.large"]
    age = catalog.as_of("aws")
    assert age is not None
    assert age.refreshed
    assert age.as_of == datetime.date(2024, 10, 4)
    assert set(catalog.clouds) == set(PACKAGED)


def test_a_changed_file_is_seen_in_spite_of_the_cache(sources: Sources, tmp_path: Path, offer: Any) -> None:
    for price in (1.0, 2.0):
        store("aws", tmp_path, [offer("aws", "x9.large", price=price)])
        assert [o.price for o in Catalog.from_sources(sources).everything("aws")] == [price]
    assert sources.cache is not None
    assert len(list(sources.cache.glob("aws-*.table"))) == 2


def test_the_cached_table_answers_as_the_file_does(sources: Sources) -> None:
    first = [*Catalog.from_sources(sources).fits(Ask(accelerator="A100", count=8))]
    assert sources.cache is not None
    assert list(sources.cache.iterdir())
    assert [*Catalog.from_sources(sources).fits(Ask(accelerator="A100", count=8))] == first != []


@pytest.mark.parametrize("content", [b"", b"garbage", b"skyinfra-offers-2\n\0\0\0\0[]"])
def test_a_spoilt_cache_only_costs_time(sources: Sources, content: bytes) -> None:
    sources.table("gcp")
    assert sources.cache is not None
    [kept] = sources.cache.iterdir()
    kept.write_bytes(content)
    assert len(sources.table("gcp")) > 150
    assert kept.stat().st_size > 1000


def test_a_cache_that_others_could_have_written_is_not_read(sources: Sources) -> None:
    sources.table("gcp")
    assert sources.cache is not None
    [kept] = sources.cache.iterdir()
    kept.chmod(0o666)
    before = kept.stat().st_ino
    sources.table("gcp")
    [again] = sources.cache.iterdir()
    assert again.stat().st_ino != before


def test_a_cache_folder_that_cannot_be_made_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert len(Sources(None, tmp_path / "file" / "cache").table("aws")) > 150


def test_overrides_change_prices_in_order_and_never_add_offers(sources: Sources) -> None:
    assert sources.folder is not None
    before = len(Catalog.from_sources(sources).table("aws"))
    (sources.folder / "overrides.yaml").write_text(
        "- {cloud: AWS, multiplier: 0.5}\n"
        "- {cloud: aws, instance_type: p5.48xlarge, region: us-east-1, spot_price: 9}\n"
        "- {cloud: aws, instance_type: nonesuch, price: 1}\n"
    )
    catalog = Catalog.from_sources(sources)
    assert len(catalog.table("aws")) == before
    by_region = {o.region: o for o in catalog.fits(Ask(cloud="aws", instance_type="p5.48xlarge"))}
    assert by_region["us-east-1"].price == pytest.approx(55.04 / 2)
    assert by_region["us-east-1"].spot_price == 9
    assert by_region["us-west-2"].spot_price != 9


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cloud: aws", "expected a list"),
        ("- aws", "rule 1: expected a map"),
        ("- {cloud: aws}", "needs cloud, and one of"),
        ("- {price: 1}", "needs cloud"),
        ("- {cloud: aws, prize: 1}", "unknown key 'prize'"),
        ("- {cloud: aws, price: -1}", "price must be"),
        ("- {cloud: aws, price: yes}", "price must be"),
        ("- {cloud: 3, price: 1}", "cloud must be a string"),
        ("- {cloud: aws, price: .nan}", "price must be"),
        ("[", "not YAML"),
    ],
)
def test_malformed_overrides_are_refused_by_file_and_rule(sources: Sources, text: str, said: str) -> None:
    assert sources.folder is not None
    (sources.folder / "overrides.yaml").write_text(text)
    with pytest.raises(InvalidSkyPilotConfigError, match=said) as caught:
        Catalog.from_sources(sources).table("aws")
    assert str(sources.folder / "overrides.yaml") in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("instance_type,vcpus\nx,1\n", "column 'memory_gib' is missing"),
        (",".join(COLUMNS) + "\nx,many,1,,,,r,,1,\n", "line 2"),
        (",".join(COLUMNS) + "\nx,1,1,,,,r,,-1,\n", "not a quantity"),
        (",".join(COLUMNS) + "\nx,1,1,,,,r,,nan,\n", "not a quantity"),
    ],
)
def test_a_malformed_catalog_file_is_refused_by_line(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        list(read_offers("aws", io.StringIO(text)))
