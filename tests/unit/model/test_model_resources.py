"""Resources: fields, alternatives, fit, printing."""

from typing import Any

import pytest

from skyinfra.model.autostop import AutostopConfig
from skyinfra.model.clouds import AWS, GCP, Kubernetes, Local
from skyinfra.model.exceptions import InvalidSkyPilotConfigError
from skyinfra.model.resource_fit import mismatches
from skyinfra.model.resources import Resources
from skyinfra.model.states import AutostopWaitFor, DiskTier


@pytest.mark.parametrize(
    ("field", "given", "kept"),
    [
        ("cpus", 4, "4"),
        ("cpus", "0.5+", "0.5+"),
        ("memory", 16, "16"),
        ("memory", "16+", "16+"),
        ("memory", "2GB", "2.0"),
        ("memory", "1TB+", "1024.0+"),
        ("memory", "4x", "4x"),
        ("disk_size", "1TB", 1024),
        ("disk_size", None, 256),
        ("disk_tier", "HIGH", DiskTier.HIGH),
        ("local_disk", "nvme", "nvme:100+"),
        ("local_disk", "500+", "nvme:500+"),
        ("local_disk", "ssd:1TB", "ssd:1024"),
        ("ports", 80, ["80"]),
        ("ports", ["81", 80, "90-92", "92-95"], ["80-81", "90-95"]),
        ("ports", "80,443", ["80", "443"]),
        ("accelerators", "a100:8", {"A100": 8}),
        ("accelerators", {"V100": 0.5}, {"V100": 0.5}),
        ("accelerators", "T4", {"T4": 1}),
        ("job_recovery", "failover", {"strategy": "FAILOVER"}),
        ("job_recovery", "none", None),
        ("job_recovery", {"strategy": None, "recover_on_exit_codes": 3}, {"recover_on_exit_codes": [3]}),
        ("image_id", "docker:ubuntu", {None: "docker:ubuntu"}),
        ("image_id", {"docker": "ubuntu"}, {None: "docker:ubuntu"}),
    ],
)
def test_each_field_keeps_one_form(field: str, given: Any, kept: Any) -> None:
    assert getattr(Resources(**{field: given}), field) == kept


@pytest.mark.parametrize(
    ("field", "given"),
    [
        ("cpus", "abc"),
        ("cpus", -1),
        ("cpus", 0),
        ("cpus", "inf"),
        ("memory", "4y"),
        ("memory", 0),
        ("disk_size", -5),
        ("disk_size", "1.5GB"),
        ("disk_size", "big"),
        ("disk_tier", "x"),
        ("network_tier", "x"),
        ("local_disk", "hdd:100"),
        ("ports", "abc"),
        ("ports", 0),
        ("ports", 65536),
        ("ports", "90-80"),
        ("accelerators", "A100:0"),
        ("accelerators", "A100:-1"),
        ("accelerators", "A100:1.5"),
        ("accelerators", "A100:x"),
        ("accelerators", ":4"),
        ("accelerators", {"A100": 1, "V100": 1}),
        ("max_hourly_cost", 0),
        ("priority", 1001),
        ("labels", {"a": 1}),
        ("autostop", "soon"),
        ("infra", "nowhere"),
    ],
)
def test_each_field_refuses_by_its_name(field: str, given: Any) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        Resources(**{field: given})
    assert caught.value._key_path[0] == field  # type: ignore[attr-defined]


def test_infra_and_its_old_form_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="leave out cloud"):
        Resources(infra="aws", cloud=AWS())


def test_a_tpu_settles_its_cloud_and_runtime() -> None:
    tpu = Resources(accelerators="tpu-v6e-8")
    assert tpu.cloud == GCP()
    assert tpu.accelerator_args == {"runtime_version": "v2-alpha-tpuv6e"}
    assert Resources(accelerators="tpu-v5-lite-podslice:4").cloud == Kubernetes()
    with pytest.raises(AssertionError, match="not on AWS"):
        Resources(accelerators="tpu-v6e-8", infra="aws")


@pytest.mark.parametrize(
    ("given", "config"),
    [
        (None, None),
        (True, AutostopConfig()),
        (False, AutostopConfig(enabled=False)),
        (-1, AutostopConfig(enabled=False)),
        (10, AutostopConfig(idle_minutes=10)),
        ("2h", AutostopConfig(idle_minutes=120)),
        ({"down": True, "wait_for": "JOBS"}, AutostopConfig(down=True, wait_for=AutostopWaitFor.JOBS)),
    ],
)
def test_autostop_in_all_its_forms(given: Any, config: AutostopConfig | None) -> None:
    resources = Resources(autostop=given)
    assert resources.autostop_config == config
    if config is not None:
        assert AutostopConfig.from_yaml_config(config.to_yaml_config()) == config


def test_flags_override_autostop() -> None:
    resources = Resources(autostop={"idle_minutes": 5, "down": True})
    resources.override_autostop_config()
    assert resources.autostop_config == AutostopConfig(idle_minutes=5, down=True)
    resources.override_autostop_config(idle_minutes=9)
    assert resources.autostop_config == AutostopConfig(idle_minutes=9, down=True)


def configs_of(config: dict[str, Any]) -> Any:
    found = Resources.from_yaml_config(config)
    dumped = [r.to_yaml_config() for r in found]
    return dumped if isinstance(found, list) else sorted(map(str, dumped))


def test_a_map_of_accelerators_is_any_order_and_a_list_is_in_order() -> None:
    assert configs_of({"accelerators": {"A100": 8, "V100": 4}}) == sorted(
        ["{'accelerators': {'A100': 8}}", "{'accelerators': {'V100': 4}}"]
    )
    assert configs_of({"gpus": ["A100:8", "V100"]}) == [{"accelerators": {"A100": 8}}, {"accelerators": {"V100": 1}}]


def test_alternatives_go_over_the_base_and_labels_merge() -> None:
    found = configs_of(
        {
            "cpus": 2,
            "labels": {"a": "1"},
            "image_id": "docker:x",
            "ordered": [{"infra": "aws", "labels": {"b": "2"}}, {"cpus": 4, "image_id": None}],
        }
    )
    assert found == [
        {"infra": "aws", "cpus": "2", "image_id": {None: "docker:x"}, "labels": {"a": "1", "b": "2"}},
        {"cpus": "4", "labels": {"a": "1"}},
    ]


def test_accelerators_times_any_of() -> None:
    found = Resources.from_yaml_config(
        {"accelerators": {"L4:4": None, "L40S:4": None}, "any_of": [{"use_spot": True}, {"use_spot": False}]}
    )
    assert isinstance(found, set)
    assert len(found) == 4


def test_a_memory_form_means_every_accelerator_of_that_size() -> None:
    found = Resources.from_yaml_config({"accelerators": "AMD:192GB:2"})
    assert {r.get_accelerators_str() for r in found} == {"MI300:2", "MI300X:2"}


@pytest.mark.parametrize(
    "config",
    [
        {"any_of": [{}], "ordered": [{}]},
        {"accelerators": ["A100", "V100"], "any_of": [{"infra": "aws"}]},
        {"accelerators": ["A100", "V100"], "ordered": [{"infra": "aws"}]},
        {"accelerators": "A100", "gpus": "A100"},
        {"hooks": [{"run": "x"}]},
    ],
)
def test_combinations_that_exclude_each_other(config: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"exclude|undo|another name|under config"):
        Resources.from_yaml_config(config)


def test_shape_problems_are_all_named() -> None:
    with pytest.raises(InvalidSkyPilotConfigError) as caught:
        Resources.from_yaml_config({"cpu": 1, "use_spot": "yes", "any_of": [{"any_of": []}]})
    text = str(caught.value)
    assert "did you mean 'cpus'" in text
    assert "use_spot: expected true or false" in text
    assert "unknown key 'any_of'" in text


def test_a_copy_changes_only_what_is_said() -> None:
    one = Resources(infra="aws/us-east-1", cpus=4, use_spot=True, autostop=5, ports=[80])
    assert one.copy().to_yaml_config() == one.to_yaml_config()
    assert one.copy(infra="gcp", cpus=8).to_yaml_config() == {
        **one.to_yaml_config(),
        "infra": "gcp",
        "cpus": "8",
    }
    with pytest.raises(TypeError, match="no field gpu"):
        one.copy(gpu=1)


@pytest.mark.parametrize(
    ("asked", "given", "fits"),
    [
        ({}, {"infra": "aws/us-east-1"}, True),
        ({"infra": "aws"}, {"infra": "gcp"}, False),
        ({"infra": "aws/us-east-1"}, {"infra": "aws/us-west-2"}, False),
        ({"accelerators": "a100"}, {"accelerators": "A100:8"}, True),
        ({"accelerators": "A100:8"}, {"accelerators": "A100:4"}, False),
        ({"accelerators": "A100"}, {}, False),
        ({"use_spot": False}, {"use_spot": True}, False),
        ({}, {"use_spot": True}, True),
        ({"disk_tier": "low"}, {"disk_tier": "high"}, True),
        ({"disk_tier": "high"}, {"disk_tier": "low"}, False),
        ({"disk_tier": "high"}, {}, False),
        ({"network_tier": "best"}, {}, False),
        ({"cpus": 64, "memory": 999}, {"cpus": 1}, True),
        ({"instance_type": "a"}, {"instance_type": "b"}, False),
    ],
)
def test_what_fits_into_what(asked: dict, given: dict, fits: bool) -> None:
    assert Resources(**asked).less_demanding_than(Resources(**given)) is fits
    assert (mismatches(Resources(**asked), Resources(**given)) == []) is fits


def test_ports_count_only_when_asked_and_nodes_must_be_enough() -> None:
    asked, given = Resources(ports=["80-82"]), Resources(ports=["79-81"])
    assert asked.less_demanding_than(given)
    assert not asked.less_demanding_than(given, check_ports=True)
    assert asked.less_demanding_than([given, given], requested_num_nodes=2)
    assert not asked.less_demanding_than([given], requested_num_nodes=2)


def test_a_block_matches_by_what_it_settles() -> None:
    candidate = Resources(infra="aws/us-east-1", instance_type="p3", use_spot=True)
    assert candidate.should_be_blocked_by(Resources(infra="aws"))
    assert candidate.should_be_blocked_by(Resources())
    assert not candidate.should_be_blocked_by(Resources(infra="aws/us-west-2"))
    assert not candidate.should_be_blocked_by(Resources(use_spot=False))


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"infra": "aws", "image_id": "ami-1"}, "needs a region"),
        ({"image_id": "ami-1"}, "needs a cloud"),
        ({"job_recovery": "nope"}, "strategy"),
        ({"infra": "gcp", "labels": {"A B": "x"}}, "label"),
        ({"infra": "k8s/ctx"}, "not in the kubeconfig"),
    ],
)
def test_rules_of_the_clouds_hold_at_validate_not_before(
    config: dict, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", "/nonexistent")
    resources = Resources(**config)
    with pytest.raises(ValueError, match=says):
        resources.validate()


def test_contexts_of_the_kubeconfig_are_known(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config").write_text("contexts:\n- {name: a/b, context: {}}\n")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    Resources(infra="k8s/a/b").validate()
    with pytest.raises(ValueError, match="it has: a/b"):
        Resources(infra="k8s/c").validate()


def test_the_printed_form() -> None:
    spot = Resources(cloud=AWS(), instance_type="p3.2xlarge", accelerators="V100", use_spot=True)
    assert repr(spot) == "AWS(p3.2xlarge[Spot], {'V100': 1})"
    assert repr(Resources(cpus="4+")) == "<Cloud>(cpus=4+)"
    assert repr(Resources(infra="local")) == "Local()"
    assert Resources(infra="aws/us-east-1").repr_with_region_zone == "AWS(, region=us-east-1)"


def test_the_local_cloud_is_a_place() -> None:
    local = Resources(infra="local")
    assert local.cloud == Local()
    assert local.to_yaml_config() == {"infra": "local"}
    local.validate()
