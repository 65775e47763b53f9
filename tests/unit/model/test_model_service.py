"""Service and pool specs: the validation matrix, and what can be a service at all."""

from typing import Any

import pytest

from skyinfra.model.exceptions import InvalidSkyPilotConfigError
from skyinfra.model.resources import Resources
from skyinfra.model.service_spec import ServiceSpec, SkyServiceSpec, validate_service_task
from skyinfra.model.task import Task

QPS = {"target_qps_per_replica": 2}


@pytest.mark.parametrize(
    "config",
    [
        {"replicas": 1, "replica_policy": {"min_replicas": 1}},
        {"replica_policy": {"min_replicas": 1, "max_replicas": 2}},
        {"replica_policy": {"min_replicas": 1, **QPS}},
        {"replica_policy": {"min_replicas": 3, "max_replicas": 1, **QPS}},
        {"replica_policy": {"min_replicas": 1, "max_replicas": 3, "target_qps_per_replica": {"A100": 2}}},
        {
            "load_balancing_policy": "instance_aware_least_load",
            "replica_policy": {"min_replicas": 1, "max_replicas": 3, **QPS},
        },
        {"readiness_probe": "health"},
        {"readiness_probe": {"path": "/", "post_data": "{bad"}},
        {"ports": 0},
        {"ports": "x"},
        {"pool": {}},
        {"pool": {"min_workers": 1}},
        {"pool": {"min_workers": 3, "max_workers": 1}},
        {"pool": {"workers": 1, "max_workers": 3}},
    ],
)
def test_specs_that_cannot_be(config: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        ServiceSpec.from_yaml_config(config)
    assert type(caught.value) is ValueError


@pytest.mark.parametrize("config", ["/health", {"tls": {"keyfile": "a"}}, {"load_balancing_policy": "zzz"}])
def test_specs_of_the_wrong_shape(config: Any) -> None:
    with pytest.raises(InvalidSkyPilotConfigError):
        ServiceSpec.from_yaml_config(config)


def test_defaults_and_short_forms() -> None:
    spec = ServiceSpec.from_yaml_config({"readiness_probe": "/h"})
    assert (spec.readiness_path, spec.min_replicas, spec.initial_delay_seconds) == ("/h", 1, 1200)
    assert ServiceSpec.from_yaml_config({"replicas": 1}).readiness_path == "/"
    assert ServiceSpec.from_yaml_config({"replica_policy": {"min_replicas": 0}}).min_replicas == 0
    assert ServiceSpec.from_yaml_config({"pool": {"workers": 3}}).failure_threshold_s == 10
    assert SkyServiceSpec is ServiceSpec


def test_texts_for_tables() -> None:
    spec = ServiceSpec.from_yaml_config({"replica_policy": {"min_replicas": 1, "max_replicas": 3, **QPS}})
    assert spec.autoscaling_policy_str() == "from 1 to 3 replicas"
    assert spec.probe_str() == "GET /"
    assert spec.tls_str() == "no TLS"
    assert spec.copy(ports="80").ports == "80"


def test_a_spec_is_read_from_a_task_text() -> None:
    assert ServiceSpec.from_yaml_str("run: x\nservice: {replicas: 2}").min_replicas == 2
    with pytest.raises(ValueError, match="no service or pool"):
        ServiceSpec.from_yaml_str("run: x")


def service_task(service: dict[str, Any], *resources: Resources) -> Task:
    return Task(resources=set(resources) or None).set_service(ServiceSpec.from_yaml_config(service))


@pytest.mark.parametrize(
    ("task", "pool", "says"),
    [
        (Task(), False, "no service section"),
        (service_task({"replicas": 1}), False, "exactly one open port"),
        (service_task({"replicas": 1}, Resources(ports=["80", "90"])), False, "exactly one open port"),
        (service_task({"ports": 80}, Resources(use_spot=True), Resources()), False, "all spot"),
        (service_task({"ports": 80}, Resources(job_recovery="failover")), False, "job_recovery"),
        (service_task({"ports": 80, "replica_policy": {"spot_placer": "dynamic_fallback"}}), False, "use_spot"),
        (service_task({"pool": {"workers": 1}}, Resources(ports=80)), True, "opens no ports"),
        (service_task({"pool": {"workers": 1}}), False, "pool section"),
    ],
)
def test_tasks_that_cannot_be_services(task: Task, pool: bool, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        validate_service_task(task, pool)


def test_tasks_that_can_be_services() -> None:
    validate_service_task(service_task({"replicas": 1}, Resources(ports=80)))
    validate_service_task(service_task({"ports": 80}, Resources(ports=["80", "90"])))
    validate_service_task(service_task({"pool": {"workers": 1}}), pool=True)
