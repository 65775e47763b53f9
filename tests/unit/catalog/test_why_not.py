from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from skyinfra.catalog.candidates import candidates_of
from skyinfra.catalog.catalog import Catalog
from skyinfra.catalog.pool import PoolCatalog
from skyinfra.catalog.whynot import REQUIREMENTS, explain, why_not
from skyinfra.model.resources import Resources


@pytest.mark.parametrize(
    ("asked", "requirement", "text"),
    [
        (
            {"accelerators": "A100:32", "infra": "gcp"},
            "count",
            "no A100:32; the largest is A100:16 on a2-megagpu-16g at $55.74/h; "
            "try num_nodes: 2 with accelerators: A100:16",
        ),
        (
            {"accelerators": "A100:3", "infra": "aws"},
            "count",
            "no A100:3; the next is A100:8 on p4d.24xlarge at $21.96/h; try accelerators: A100:8",
        ),
        (
            {"accelerators": "H100:8", "infra": "gcp", "cpus": "256+"},
            "cpus",
            "no H100:8 with 256+ vCPUs; the nearest has 208: H100:8 on a3-highgpu-8g at $88.49/h; try cpus: 208+",
        ),
        (
            {"cpus": "2", "memory": "64+", "infra": "aws"},
            "memory",
            "no machine with 64+ GiB of memory; the nearest has 16: r7i.large at $0.13/h; try memory: 16+",
        ),
        (
            {"accelerators": "A100:8", "infra": "aws/ap-south-1"},
            "region",
            "A100:8 is not offered in ap-south-1 as far as is known; the nearest is us-west-2 at $21.96/h; "
            "try infra: aws/us-west-2",
        ),
        (
            {"accelerators": "A100-80GB:8", "infra": "gcp/us-central1/us-central1-b"},
            "zone",
            "A100-80GB:8 is not in zone us-central1-b; us-central1 has it in us-central1-a, us-central1-c",
        ),
        (
            {"accelerators": "H100:1", "infra": "gcp"},
            "price",
            "no on-demand price is known for H100:1 on a3-highgpu-1g; spot it is $4.54/h; try use_spot: true",
        ),
        (
            {"accelerators": "V100:8", "infra": "gcp", "use_spot": True},
            "spot",
            "no spot price is known for V100:8 on n1-standard-64; on demand it is $22.88/h; try use_spot: false",
        ),
        (
            {"accelerators": "A100:8", "infra": "aws", "max_hourly_cost": 5},
            "max_hourly_cost",
            "nothing within $5/h; the cheapest is A100:8 on p4d.24xlarge at $21.96/h; try max_hourly_cost: 21.96",
        ),
        (
            {"accelerators": "MI300X:8", "infra": "aws"},
            "accelerator",
            "no MI300X; azure has MI300X:8 on Standard_ND96is_MI300X_v5 at $48.00/h; try infra: azure",
        ),
        (
            {"instance_type": "p4d.24xlarg", "infra": "aws"},
            "instance_type",
            "no p4d.24xlarg; the nearest name is p4d.24xlarge",
        ),
        (
            {"accelerators": "A100:8", "infra": "aws", "local_disk": "nvme:100+"},
            "local_disk",
            "the sizes of local disks are not known for aws; a named instance_type is taken as it is",
        ),
        (
            {"instance_type": "p4d.24xlarge", "infra": "aws", "accelerators": "H100:8"},
            "accelerator",
            "p4d.24xlarge is known with A100:8, not with H100:8; try accelerators: A100:8",
        ),
        ({"infra": "lambda"}, "cloud", "no offers are known for this cloud, or it is not enabled"),
    ],
)
def test_the_first_requirement_that_rules_out_is_named_with_the_nearest_offer(
    shipped: Catalog, asked: dict[str, Any], requirement: str, text: str
) -> None:
    [refusal] = why_not(shipped, [Resources(**asked)])
    assert (refusal.requirement, refusal.text) == (requirement, text)


def test_what_is_suggested_fits_when_it_is_followed(shipped: Catalog) -> None:
    for asked in (
        {"accelerators": "A100:3", "infra": "aws"},
        {"accelerators": "H100:8", "infra": "gcp", "cpus": "256+"},
        {"accelerators": "A100:8", "infra": "aws/ap-south-1"},
        {"accelerators": "H100:1", "infra": "gcp"},
        {"accelerators": "A100:8", "infra": "aws", "max_hourly_cost": 5},
    ):
        [refusal] = why_not(shipped, [Resources(**asked)])
        assert refusal.suggestion is not None
        key, _, value = refusal.suggestion.partition(": ")
        changed = {**asked, key: {"true": True}.get(value, float(value) if key == "max_hourly_cost" else value)}
        assert why_not(shipped, [Resources(**changed)]) == []


def test_a_cloud_that_fits_is_not_explained(shipped: Catalog) -> None:
    assert why_not(shipped, [Resources(accelerators="A100:8")]) == []
    assert {one.cloud for one in why_not(shipped, [Resources(accelerators="MI300X:8")])} == {"aws", "gcp"}


def test_nodes_count_in_what_to_try(shipped: Catalog) -> None:
    [refusal] = why_not(shipped, [Resources(accelerators="A100:16", infra="aws")], num_nodes=2)
    assert refusal.suggestion == "num_nodes: 4 with accelerators: A100:8"


def test_blocked_places_are_told_apart_from_missing_ones(shipped: Catalog) -> None:
    [refusal] = why_not(shipped, [Resources(accelerators="A100:8", infra="aws")], blocked=[Resources(infra="aws")])
    assert refusal.requirement == "blocked"


def test_a_pool_says_what_its_largest_machine_has(offer: Any) -> None:
    pool = PoolCatalog("ssh", [offer("ssh", "host-1", cpus=16, gib=64, price=0.0)])
    [refusal] = why_not(Catalog(live={"ssh": pool}), [Resources(cpus="32+")])
    assert "the nearest has 16" in refusal.text


def test_the_explanation_has_a_line_per_family(shipped: Catalog) -> None:
    refusals = why_not(shipped, [Resources(accelerators="A100:32")])
    lines = explain("train", refusals).splitlines()
    assert lines[0] == "Nothing that is allowed fits task 'train':"
    assert [line.split(":")[0].strip() for line in lines[1:]] == ["aws", "azure", "gcp"]


wishes = st.fixed_dictionaries(
    {},
    optional={
        "infra": st.sampled_from(
            [
                "aws",
                "gcp",
                "aws/us-east-1",
                "aws/us-east-1/us-east-1a",
                "gcp/nowhere",
                "azure/eastus/eastus-1",
                "lambda",
            ]
        ),
        "cpus": st.sampled_from(["1", "2", "4+", "3", "96+", "1000+", "0.5"]),
        "memory": st.sampled_from(["4", "4x", "16+", "1000+"]),
        "accelerators": st.sampled_from(
            ["A100", "A100:8", "H100:1", "A10:0.5", "T4:64", "K80", "L4:2", "Trainium:16", "nonesuch:2", "tpu-v5p-8"]
        ),
        "use_spot": st.booleans(),
        "max_hourly_cost": st.sampled_from([0.01, 5, 1000]),
        "local_disk": st.just("nvme"),
        "instance_type": st.sampled_from(["p4d.24xlarge", "n1-standard-8", "nonesuch", "P4D.24xlarge"]),
    },
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(wishes)
def test_every_cloud_that_is_asked_either_fits_or_says_why(shipped: Catalog, asked: dict[str, Any]) -> None:
    try:
        resources = Resources(**asked)
    except (ValueError, AssertionError):
        assume(False)
        return
    fitting = {one.offer.cloud for one in candidates_of(shipped, [resources])}
    refusals = why_not(shipped, [resources])
    clouds = set(shipped.clouds) if resources.cloud is None else {resources.cloud.canonical_name()}
    assert {one.cloud for one in refusals} == clouds - fitting
    for one in refusals:
        assert one.requirement in REQUIREMENTS
        assert "\n" not in one.text
        assert "None" not in one.text
        assert "inf " not in one.text
