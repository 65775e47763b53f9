"""`service:` and `pool:` as values: what a replica must answer, how many there are, and what balances between them.

Field rules and their combinations only; whether a task can be a service is `validate_service_task`. Running one is the
server's business.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from skyinfra.model.problems import raise_problems, under
from skyinfra.model.schema import SERVICE
from skyinfra.model.schema_check import check, json_value

if TYPE_CHECKING:
    from skyinfra.model.task import Task

__all__ = ["ServiceSpec", "SkyServiceSpec", "TLSCredential", "validate_service_task"]

DEFAULT_INITIAL_DELAY_S = 1200
DEFAULT_TIMEOUT_S = 15
DEFAULT_PROBE_INTERVAL_S = 10
DEFAULT_STREAM_TIMEOUT_S = 120
DEFAULT_UPSCALE_DELAY_S = 300
DEFAULT_DOWNSCALE_DELAY_S = 1200
DEFAULT_FAILURE_THRESHOLD_S = 180
DEFAULT_POOL_FAILURE_THRESHOLD_S = 10
INSTANCE_AWARE = "instance_aware_least_load"
DEFAULT_POLICY = "least_load"


@dataclass(frozen=True)
class TLSCredential:
    """Files of the key and the certificate that the endpoint shows."""

    keyfile: str
    certfile: str


@dataclass(frozen=True)
class ServiceSpec:
    """One service or pool. None = its default (see the constants above). Raises `ValueError` for what cannot be."""

    readiness_path: str = "/"
    initial_delay_seconds: int | float = DEFAULT_INITIAL_DELAY_S
    readiness_timeout_seconds: int | float = DEFAULT_TIMEOUT_S
    endpoint_probe_interval_seconds: int | float | None = None
    lb_stream_timeout_seconds: int | float | None = None
    min_replicas: int = 1
    max_replicas: int | None = None
    num_overprovision: int | None = None
    ports: str | None = None
    target_qps_per_replica: float | dict[str, float] | None = None
    post_data: dict[str, Any] | None = None
    tls_credential: TLSCredential | None = None
    readiness_headers: dict[str, str] | None = None
    dynamic_ondemand_fallback: bool | None = None
    base_ondemand_fallback_replicas: int | None = None
    spot_placer: str | None = None
    upscale_delay_seconds: int | float | None = None
    downscale_delay_seconds: int | float | None = None
    load_balancing_policy: str | None = None
    pool: bool = False
    queue_length_threshold: int | None = None
    consecutive_failure_threshold_timeout: int | float | None = None

    def __post_init__(self) -> None:
        with under("readiness_probe"):
            if not self.readiness_path.startswith("/"):
                raise ValueError(f"the readiness path {self.readiness_path!r} must start with /")
        with under("ports"):
            if self.ports is not None and not (self.ports.isdecimal() and 1 <= int(self.ports) <= 65535):
                raise ValueError(f"the service's port {self.ports!r} is not from 1 to 65535")
        with under("pool" if self.pool else "replica_policy"):
            self._check_counts()

    def _check_counts(self) -> None:
        if self.min_replicas < 0:
            raise ValueError("min_replicas must be 0 or more")
        if self.max_replicas is not None and self.max_replicas < self.min_replicas:
            raise ValueError(f"max_replicas {self.max_replicas} is below min_replicas {self.min_replicas}")
        if self.pool:
            return
        qps = self.target_qps_per_replica
        if qps is not None and self.max_replicas is None:
            raise ValueError("target_qps_per_replica needs max_replicas: it scales up to that")
        if qps is None and self.max_replicas is not None and self.max_replicas != self.min_replicas:
            raise ValueError("min_replicas and max_replicas differ, so target_qps_per_replica must say when to scale")
        if isinstance(qps, (int, float)) and qps <= 0:
            raise ValueError("target_qps_per_replica must be more than 0")
        aware = self.load_balancing_policy == INSTANCE_AWARE
        if isinstance(qps, dict) and not aware:
            raise ValueError(f"target_qps_per_replica per accelerator needs load_balancing_policy: {INSTANCE_AWARE}")
        if aware and not isinstance(qps, dict):
            raise ValueError(f"load_balancing_policy {INSTANCE_AWARE} needs target_qps_per_replica per accelerator")

    @property
    def use_ondemand_fallback(self) -> bool:
        return bool(self.dynamic_ondemand_fallback) or bool(self.base_ondemand_fallback_replicas)

    @property
    def failure_threshold_s(self) -> float:
        """How long a replica may fail its probe before it is given up."""
        default = DEFAULT_POOL_FAILURE_THRESHOLD_S if self.pool else DEFAULT_FAILURE_THRESHOLD_S
        given = self.consecutive_failure_threshold_timeout
        return default if given is None else given

    def copy(self, **override: Any) -> ServiceSpec:
        """Another, with some fields given anew."""
        from dataclasses import replace

        return replace(self, **override)

    @staticmethod
    def from_yaml_config(config: dict[str, Any] | None) -> ServiceSpec:
        """Of a `service` map, or of `{pool: {…}}`. Raises `InvalidSkyPilotConfigError` or `ValueError`."""
        raise_problems(check(config, SERVICE), "service YAML")
        config = config or {}
        if config.get("pool") is not None:
            with under("pool"):
                return _pool(config["pool"])
        return _service(config)

    @staticmethod
    def from_yaml(yaml_path: str) -> ServiceSpec:
        """Of the `service` (or `pool`) section of a task file."""
        from skyinfra.model.yaml_file import read_yaml_file

        return _from_source(read_yaml_file(yaml_path))

    @staticmethod
    def from_yaml_str(yaml_str: str) -> ServiceSpec:
        from skyinfra.model.yaml_file import read_yaml_str

        return _from_source(read_yaml_str(yaml_str))

    def to_yaml_config(self) -> dict[str, Any]:
        """The `service` map that means this; a pool is `{pool: {…}}`."""
        return {"pool": _pool_config(self)} if self.pool else _service_config(self)

    def probe_str(self) -> str:
        """For a table: how a replica is probed."""
        if self.pool:
            return "-"
        method = "GET" if self.post_data is None else f"POST {json.dumps(self.post_data)}"
        headers = " with custom headers" if self.readiness_headers else ""
        return f"{method} {self.readiness_path}{headers}"

    def spot_policy_str(self) -> str:
        """For a table: how spot replicas are backed."""
        parts = ["dynamic fallback to on-demand"] if self.dynamic_ondemand_fallback else []
        if self.base_ondemand_fallback_replicas:
            parts.append(f"{self.base_ondemand_fallback_replicas} on-demand")
        if self.spot_placer:
            parts.append(f"placer {self.spot_placer}")
        return ", ".join(parts) or "no spot policy"

    def autoscaling_policy_str(self) -> str:
        """For a table: how many replicas, and why."""
        noun = "worker" if self.pool else "replica"
        if self.max_replicas in (None, self.min_replicas):
            return f"fixed at {self.min_replicas} {noun}{'' if self.min_replicas == 1 else 's'}"
        return f"from {self.min_replicas} to {self.max_replicas} {noun}s"

    def tls_str(self) -> str:
        tls = self.tls_credential
        return "no TLS" if tls is None else f"keyfile: {tls.keyfile}, certfile: {tls.certfile}"


SkyServiceSpec = ServiceSpec


def _from_source(source: Any) -> ServiceSpec:
    document = source.documents[0] if source.documents else None
    with source.locating(0):
        if not isinstance(document, dict) or not (document.get("service") or document.get("pool")):
            raise ValueError("there is no service or pool section")
        if document.get("service") is not None:
            with under("service"):
                return ServiceSpec.from_yaml_config(document["service"])
        return ServiceSpec.from_yaml_config({"pool": document["pool"]})


def _service(config: dict[str, Any]) -> ServiceSpec:
    replicas, policy = config.get("replicas"), config.get("replica_policy")
    if replicas is not None and policy is not None:
        with under("replicas"):
            raise ValueError("replicas and replica_policy exclude each other")
    policy = policy or {}
    asked = config.get("readiness_probe")
    probe: dict[str, Any] = {"path": asked} if isinstance(asked, str) else dict(asked or {})
    tls = config.get("tls")
    ports = config.get("ports")
    lb_policy = config.get("load_balancing_policy")
    with under("readiness_probe", "post_data"):
        post_data = _post_data(probe.get("post_data"))
    return ServiceSpec(
        readiness_path=probe.get("path") or "/",
        initial_delay_seconds=_or(probe.get("initial_delay_seconds"), DEFAULT_INITIAL_DELAY_S),
        readiness_timeout_seconds=_or(probe.get("timeout_seconds"), DEFAULT_TIMEOUT_S),
        endpoint_probe_interval_seconds=probe.get("endpoint_probe_interval_seconds"),
        consecutive_failure_threshold_timeout=probe.get("consecutive_failure_threshold_timeout"),
        post_data=post_data,
        readiness_headers=probe.get("headers"),
        lb_stream_timeout_seconds=(config.get("load_balancer") or {}).get("stream_timeout_seconds"),
        min_replicas=_or(replicas, _or(policy.get("min_replicas"), 1)),
        max_replicas=policy.get("max_replicas"),
        num_overprovision=policy.get("num_overprovision"),
        ports=None if ports is None else str(ports),
        target_qps_per_replica=policy.get("target_qps_per_replica"),
        tls_credential=None if tls is None else TLSCredential(tls["keyfile"], tls["certfile"]),
        dynamic_ondemand_fallback=policy.get("dynamic_ondemand_fallback"),
        base_ondemand_fallback_replicas=policy.get("base_ondemand_fallback_replicas"),
        spot_placer=policy.get("spot_placer"),
        upscale_delay_seconds=policy.get("upscale_delay_seconds"),
        downscale_delay_seconds=policy.get("downscale_delay_seconds"),
        load_balancing_policy=None if lb_policy is None else lb_policy.lower(),
    )


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value


def _post_data(value: str | dict[str, Any] | None) -> dict[str, Any] | None:
    if not isinstance(value, str):
        return json_value(value)
    try:
        return json.loads(value)
    except json.JSONDecodeError as exc:
        raise ValueError(f"post_data is not JSON: {exc}") from exc


def _pool(config: dict[str, Any]) -> ServiceSpec:
    workers, low, high = config.get("workers"), config.get("min_workers"), config.get("max_workers")
    if workers is not None and (low is not None or high is not None):
        raise ValueError("workers and min_workers or max_workers exclude each other")
    if workers is None and (low is None or high is None):
        raise ValueError("a pool needs workers, or both min_workers and max_workers")
    return ServiceSpec(
        pool=True,
        min_replicas=_or(workers, low),
        max_replicas=high,
        queue_length_threshold=config.get("queue_length_threshold"),
        upscale_delay_seconds=config.get("upscale_delay_seconds"),
        downscale_delay_seconds=config.get("downscale_delay_seconds"),
    )


def _said(pairs: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in pairs.items() if v is not None}


def _pool_config(spec: ServiceSpec) -> dict[str, Any]:
    fixed = spec.max_replicas is None
    return _said(
        {
            "workers": spec.min_replicas if fixed else None,
            "min_workers": None if fixed else spec.min_replicas,
            "max_workers": spec.max_replicas,
            "queue_length_threshold": spec.queue_length_threshold,
            "upscale_delay_seconds": spec.upscale_delay_seconds,
            "downscale_delay_seconds": spec.downscale_delay_seconds,
        }
    )


def _service_config(spec: ServiceSpec) -> dict[str, Any]:
    probe = {
        "path": spec.readiness_path,
        "initial_delay_seconds": spec.initial_delay_seconds,
        "timeout_seconds": spec.readiness_timeout_seconds,
        "endpoint_probe_interval_seconds": spec.endpoint_probe_interval_seconds,
        "consecutive_failure_threshold_timeout": spec.consecutive_failure_threshold_timeout,
        "post_data": spec.post_data,
        "headers": spec.readiness_headers,
    }
    policy = {
        "min_replicas": spec.min_replicas,
        "max_replicas": spec.max_replicas,
        "num_overprovision": spec.num_overprovision,
        "target_qps_per_replica": spec.target_qps_per_replica,
        "dynamic_ondemand_fallback": spec.dynamic_ondemand_fallback,
        "base_ondemand_fallback_replicas": spec.base_ondemand_fallback_replicas,
        "spot_placer": spec.spot_placer,
        "upscale_delay_seconds": spec.upscale_delay_seconds,
        "downscale_delay_seconds": spec.downscale_delay_seconds,
    }
    tls, stream = spec.tls_credential, spec.lb_stream_timeout_seconds
    return _said(
        {
            "readiness_probe": _said(probe),
            "replica_policy": _said(policy),
            "ports": spec.ports,
            "load_balancing_policy": spec.load_balancing_policy,
            "load_balancer": None if stream is None else {"stream_timeout_seconds": stream},
            "tls": None if tls is None else {"keyfile": tls.keyfile, "certfile": tls.certfile},
        }
    )


def validate_service_task(task: Task, pool: bool = False) -> None:
    """Whether a task can be run as a service, or as a pool. Raises `ValueError`."""
    word = "pool" if pool else "service"
    spec = task.service
    if spec is None:
        raise ValueError(f"the task has no {word} section")
    if spec.pool != pool:
        raise ValueError(f"the task has a {'pool' if spec.pool else 'service'} section, not a {word} section")
    if pool and isinstance(task.resources, list):
        raise ValueError("a pool cannot have ordered resources")
    if len({r.use_spot for r in task.resources}) > 1:
        raise ValueError(f"the alternatives of a {word} must be all spot or all on-demand")
    for resources in task.resources:
        if resources.job_recovery is not None:
            raise ValueError(f"a {word} has no job_recovery: its replicas are replaced anyway")
        if pool and resources.ports:
            raise ValueError("a pool opens no ports")
        if not resources.use_spot and (spec.use_ondemand_fallback or spec.spot_placer):
            raise ValueError("on-demand fallback and spot_placer need use_spot: true")
        if not pool and spec.ports is None and len(_single_ports(resources.ports)) != 1:
            raise ValueError("a service needs exactly one open port, or service.ports to say which of them")


def _single_ports(ports: list[str] | None) -> set[int]:
    from skyinfra.model.resource_fields import ports_as_set

    return ports_as_set(ports)
