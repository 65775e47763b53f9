"""Records, request ids, handles, secrets, names, accelerators."""

import copy
import json
import pickle

import pytest

from skyinfra.model import accelerators, names
from skyinfra.model.clouds import AWS, CLOUD_REGISTRY, InfraInfo, K8s, Kubernetes
from skyinfra.model.exceptions import InvalidClusterNameError, InvalidSkyPilotConfigError, NotSupportedError
from skyinfra.model.handles import ClusterHandle
from skyinfra.model.offers import offers, set_offers
from skyinfra.model.records import Record
from skyinfra.model.requests import RequestId
from skyinfra.model.secret import SecretStr


def test_a_record_is_a_dict_with_attributes() -> None:
    record = Record(name="c", status="UP")
    assert record.name == record["name"] == record.get("name") == "c"
    assert list(record) == ["name", "status"]
    assert json.loads(json.dumps(record)) == {"name": "c", "status": "UP"}
    for twin in (pickle.loads(pickle.dumps(record)), copy.deepcopy(record), record.copy()):
        assert isinstance(twin, Record)
        assert twin == record


def test_a_missing_field_of_a_record_is_an_attribute_error_that_names_the_others() -> None:
    with pytest.raises(AttributeError, match="it has name"):
        _ = Record(name="c").nope
    assert not hasattr(Record(), "nope")


def test_a_request_id_is_a_string() -> None:
    rid = RequestId[int]("abc")
    assert rid == "abc"
    assert json.dumps(rid) == '"abc"'
    assert pickle.loads(pickle.dumps(rid)) == rid


def test_a_handle_survives_json_and_knows_its_resources() -> None:
    handle = ClusterHandle(
        "c", "c-1", head_ip="10.0.0.1", launched_nodes=2, resources_config={"infra": "local", "cpus": "4"}
    )
    assert ClusterHandle.from_json(json.loads(json.dumps(handle.to_json()))) == handle
    assert handle.launched_resources.cpus == "4"
    assert handle.get_cluster_name() == "c"
    assert handle.external_ips() is None
    assert ClusterHandle.from_json(None) is None


def test_a_handle_of_a_newer_server_is_read() -> None:
    handle = ClusterHandle.from_json({"cluster_name": "c", "moon_phase": 3})
    assert handle is not None
    assert handle.launched_nodes == 1


def test_a_secret_prints_nothing() -> None:
    secret = SecretStr("canary")
    assert "canary" not in f"{secret} {secret!r} {[secret]}"
    assert secret.get_secret_value() == "canary"
    assert secret == SecretStr("canary")


@pytest.mark.parametrize("name", ["a", "A-B", "a.b", "a_b", "sky-1234-me", None])
def test_cluster_names_that_are_accepted(name: str | None) -> None:
    names.validate_cluster_name(name)


@pytest.mark.parametrize("name", ["", "1a", "a-", "-a", "a b", "a/b", "ä", "a\n", "a" * 201])
def test_cluster_names_that_are_refused(name: str) -> None:
    with pytest.raises(InvalidClusterNameError):
        names.validate_cluster_name(name)
    assert not names.is_valid_cluster_name(name)


def test_controller_names_are_reserved() -> None:
    with pytest.raises(NotSupportedError):
        names.check_not_reserved("sky-jobs-controller-1")


def test_default_names_are_valid_whatever_the_user_is_called() -> None:
    for user in ("root", "Ada Lovelace", "ü", "a.b@c", ""):
        names.validate_cluster_name(names.default_cluster_name("12ab", user))


def test_names_on_clouds_are_short_and_tell_long_ones_apart() -> None:
    assert names.name_on_cloud("A.b_c", "deadbeef") == "a-b-c-deadbeef"
    one, two = (names.name_on_cloud("x" * 60 + tail, "deadbeef") for tail in "ab")
    assert len(one) <= 35
    assert one != two


@pytest.mark.parametrize(
    ("given", "usual"),
    [("a100-80gb", "A100-80GB"), ("h100", "H100"), ("TPU-V5P-8", "tpu-v5p-8"), ("made-up", "made-up"), ("t4G", "T4g")],
)
def test_accelerator_names_in_any_case(given: str, usual: str) -> None:
    assert accelerators.canonical_accelerator(given) == usual


def test_memory_forms_name_makers_and_sizes() -> None:
    assert accelerators.parse_memory_form("nvidia:80GB+") == ("NVIDIA", 80.0, True)
    assert accelerators.parse_memory_form("80GB") == (None, 80.0, False)
    assert accelerators.parse_memory_form("A100-80GB") is None
    assert "H100" in accelerators.accelerators_with_memory("NVIDIA", 80, False)
    assert "MI300X" not in accelerators.accelerators_with_memory("NVIDIA", 80, True)


def test_clouds_compare_by_kind() -> None:
    assert AWS() == CLOUD_REGISTRY["aws"] == CLOUD_REGISTRY.from_str("AWS")
    assert K8s is Kubernetes
    assert CLOUD_REGISTRY.from_str("k8s") == Kubernetes()
    with pytest.raises(ValueError, match="did you mean 'azure'"):
        CLOUD_REGISTRY.from_str("azur")


@pytest.mark.parametrize(
    ("text", "parts", "back"),
    [
        ("aws", ("aws", None, None), "aws"),
        ("AWS/us-east-1", ("aws", "us-east-1", None), "aws/us-east-1"),
        ("aws/*/us-east-1a", ("aws", None, "us-east-1a"), "aws/*/us-east-1a"),
        ("*/us-east-1", (None, "us-east-1", None), "*/us-east-1"),
        ("k8s/arn:aws:eks/a/b", ("kubernetes", "arn:aws:eks/a/b", None), "kubernetes/arn:aws:eks/a/b"),
        ("ssh/pool", ("ssh", "pool", None), "ssh/pool"),
        ("slurm/c/p", ("slurm", "c", "p"), "slurm/c/p"),
        ("local", ("local", None, None), "local"),
        ("*", (None, None, None), None),
        ("", (None, None, None), None),
    ],
)
def test_infra_texts(text: str, parts: tuple, back: str | None) -> None:
    info = InfraInfo.from_str(text)
    assert (info.cloud, info.region, info.zone) == parts
    assert info.to_str() == back
    assert InfraInfo.from_str(back) == info


@pytest.mark.parametrize("text", ["nope", "aws/a/b/c", "aws2/us"])
def test_infra_texts_that_are_refused(text: str) -> None:
    with pytest.raises(InvalidSkyPilotConfigError):
        InfraInfo.from_str(text)


def test_prices_come_from_whoever_was_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skyinfra.model.offers._current", None)  # and back to what other tests left there
    with pytest.raises(RuntimeError, match="no catalog"):
        offers()

    class Flat:
        def price(self, resources: object) -> float:
            return 2.0

        def fits(self, resources: object) -> bool:
            return True

    set_offers(Flat())
    handle = ClusterHandle("c", launched_nodes=3, resources_config={"infra": "aws"})
    assert handle.launched_resources.get_cost(1800) == 1.0
    assert handle.get_hourly_price() == 6.0
