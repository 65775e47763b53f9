"""`Resources`: what one node should be. A request (some fields open) and an answer (all settled) are the same class.

Values only: whether a cloud has it, and at what price, is asked of `offers`. How alternatives are written in YAML is in
`resource_yaml`, what fits into what in `resource_fit`, what each field may hold in `resource_fields`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from skyinfra.model import resource_fields as fields
from skyinfra.model import resource_fit, resource_yaml
from skyinfra.model.accelerators import canonical_accelerator, default_tpu_runtime, is_tpu
from skyinfra.model.autostop import AutostopConfig
from skyinfra.model.clouds import CLOUD_REGISTRY, GCP, Cloud, InfraInfo, Kubernetes
from skyinfra.model.problems import under
from skyinfra.model.states import AutostopWaitFor, DiskTier, NetworkTier

__all__ = ["Resources"]


class Resources:
    """The hardware, place and price of a node, as far as they are said.

    Immutable but for `override_autostop_config` and `set_requires_fuse`; `copy(**changes)` makes another. Two equal
    requests are two objects: equality is identity, as in SkyPilot, so that a set keeps every alternative.

    Raises `ValueError` (the field's rule, with the field's name) and, for a TPU on a cloud without any,
    `AssertionError`.
    """

    def __init__(
        self,
        cloud: Cloud | None = None,
        instance_type: str | None = None,
        cpus: int | float | str | None = None,
        memory: int | float | str | None = None,
        accelerators: str | dict[str, int | float] | None = None,
        accelerator_args: dict[str, Any] | None = None,
        infra: str | None = None,
        use_spot: bool | None = None,
        job_recovery: dict[str, Any] | str | None = None,
        region: str | None = None,
        zone: str | None = None,
        image_id: dict[str | None, str] | dict[str, str] | str | None = None,
        disk_size: str | int | None = None,
        disk_tier: str | DiskTier | None = None,
        network_tier: str | NetworkTier | None = None,
        local_disk: str | None = None,
        max_hourly_cost: float | None = None,
        ports: int | str | list[str] | tuple[str, ...] | None = None,
        labels: dict[str, str] | None = None,
        autostop: bool | int | str | dict[str, Any] | AutostopConfig | None = None,
        hooks: list[dict[str, Any]] | None = None,
        priority: int | None = None,
        priority_class: str | None = None,
        volumes: list[dict[str, Any]] | None = None,
        _docker_login_config: Any = None,
        _docker_username_for_runpod: str | None = None,
        _is_image_managed: bool | None = None,
        _requires_fuse: bool | None = None,
        _cluster_config_overrides: dict[str, Any] | None = None,
        _no_missing_accel_warnings: bool | None = None,
    ) -> None:
        self._set_place(cloud, region, zone, infra)
        self._instance_type = instance_type
        with under("cpus"):
            self._cpus = fields.parse_cpus(cpus)
        with under("memory"):
            self._memory = fields.parse_memory(memory)
        with under("accelerators"):
            self._accelerators = fields.parse_accelerators(accelerators)
            self._accelerator_args = self._settled_accelerator_args(accelerator_args)
        self._use_spot = use_spot
        with under("job_recovery"):
            self._job_recovery = fields.parse_job_recovery(job_recovery)
        with under("image_id"):
            self._image_id = fields.parse_image_id(image_id, self._region)
        with under("disk_size"):
            self._disk_size = fields.parse_disk_size(disk_size)
        self._disk_tier = _tier(DiskTier, "disk_tier", disk_tier)
        self._network_tier = _tier(NetworkTier, "network_tier", network_tier)
        with under("local_disk"):
            self._local_disk = fields.parse_local_disk(local_disk)
        self._max_hourly_cost = _positive("max_hourly_cost", max_hourly_cost)
        with under("ports"):
            self._ports = fields.parse_ports(ports)
        with under("labels"):
            self._labels = fields.parse_labels(labels)
        with under("autostop"):
            self._autostop = AutostopConfig.from_yaml_config(autostop)  # type: ignore[arg-type]
        self._hooks = [dict(h) for h in hooks] if hooks else None
        if priority is not None and not -1000 <= priority <= 1000:
            with under("priority"):
                raise ValueError(f"priority {priority} is not from -1000 to 1000")
        self._priority = priority
        self._priority_class = priority_class
        self._volumes = [dict(v) for v in volumes] if volumes else None
        self._docker_login_config = _docker_login_config
        self._docker_username_for_runpod = _docker_username_for_runpod
        self._is_image_managed = _is_image_managed
        self._requires_fuse = _requires_fuse
        self._cluster_config_overrides = _cluster_config_overrides or {}
        self._no_missing_accel_warnings = _no_missing_accel_warnings

    def _set_place(self, cloud: Cloud | str | None, region: str | None, zone: str | None, infra: str | None) -> None:
        if infra is not None and any(v is not None for v in (cloud, region, zone)):
            with under("infra"):
                raise ValueError("infra already says where: leave out cloud, region and zone")
        if infra is not None:
            with under("infra"):
                place = InfraInfo.from_str(infra)
            cloud, region, zone = place.cloud, place.region, place.zone
        with under("cloud"):
            self._cloud = CLOUD_REGISTRY.from_str(cloud) if isinstance(cloud, str) else cloud
        self._region = region
        self._zone = zone

    def _settled_accelerator_args(self, given: dict[str, Any] | None) -> dict[str, Any] | None:
        """TPUs settle their cloud, and on GCP their runtime, here: neither can be left open."""
        name = next(iter(self._accelerators or {}), "")
        if not is_tpu(name):
            return dict(given) if given else None
        if self._cloud is None:
            self._cloud = Kubernetes() if "slice" in name.lower() else GCP()
        assert isinstance(self._cloud, (GCP, Kubernetes)), f"TPUs are on GCP and Kubernetes, not on {self._cloud}"
        args = dict(given or {})
        if isinstance(self._cloud, GCP):
            args.setdefault("runtime_version", default_tpu_runtime(name))
        return args or None

    # --- what is asked --------------------------------------------------------------------------------------------

    @property
    def infra(self) -> InfraInfo:
        """Where, as one value."""
        return InfraInfo(self._cloud.canonical_name() if self._cloud else None, self._region, self._zone)

    @property
    def cloud(self) -> Cloud | None:
        return self._cloud

    @property
    def region(self) -> str | None:
        return self._region

    @property
    def zone(self) -> str | None:
        return self._zone

    @property
    def instance_type(self) -> str | None:
        return self._instance_type

    @property
    def cpus(self) -> str | None:
        """`"4"` or `"4+"`."""
        return self._cpus

    @property
    def memory(self) -> str | None:
        """GB: `"16"`, `"16+"`; `"4x"` = times the vCPUs."""
        return self._memory

    @property
    def accelerators(self) -> dict[str, int | float] | None:
        """`{canonical name: count}` of the one accelerator."""
        if self._accelerators is None:
            return None
        return {canonical_accelerator(name): count for name, count in self._accelerators.items()}

    @property
    def accelerator_args(self) -> dict[str, Any] | None:
        return self._accelerator_args

    @property
    def use_spot(self) -> bool:
        return bool(self._use_spot)

    @property
    def use_spot_specified(self) -> bool:
        return self._use_spot is not None

    @property
    def job_recovery(self) -> dict[str, Any] | None:
        return self._job_recovery

    @property
    def disk_size(self) -> int:
        """GB."""
        return self._disk_size

    @property
    def disk_size_specified(self) -> bool:
        """Whether it differs from the default: writing the default says nothing."""
        return self._disk_size != fields.DEFAULT_DISK_GB

    @property
    def image_id(self) -> dict[str | None, str] | None:
        return self._image_id

    @property
    def disk_tier(self) -> DiskTier | None:
        return self._disk_tier

    @property
    def network_tier(self) -> NetworkTier | None:
        return self._network_tier

    @property
    def local_disk(self) -> str | None:
        return self._local_disk

    @property
    def max_hourly_cost(self) -> float | None:
        return self._max_hourly_cost

    @property
    def ports(self) -> list[str] | None:
        return self._ports

    @property
    def labels(self) -> dict[str, str] | None:
        return self._labels

    @property
    def volumes(self) -> list[dict[str, Any]] | None:
        return self._volumes

    @property
    def autostop_config(self) -> AutostopConfig | None:
        return self._autostop

    @property
    def hooks(self) -> list[dict[str, Any]] | None:
        return self._hooks

    @property
    def priority(self) -> int | None:
        return self._priority

    @property
    def priority_class(self) -> str | None:
        return self._priority_class

    @property
    def is_image_managed(self) -> bool | None:
        return self._is_image_managed

    @property
    def requires_fuse(self) -> bool:
        """Whether a bucket is to be mounted, which needs FUSE on the node."""
        return bool(self._requires_fuse)

    def set_requires_fuse(self, value: bool) -> None:
        self._requires_fuse = value

    @property
    def no_missing_accel_warnings(self) -> bool:
        return bool(self._no_missing_accel_warnings)

    @property
    def cluster_config_overrides(self) -> dict[str, Any]:
        return self._cluster_config_overrides

    @property
    def docker_login_config(self) -> Any:
        return self._docker_login_config

    @property
    def docker_username_for_runpod(self) -> str | None:
        return self._docker_username_for_runpod

    # --- what follows from it -------------------------------------------------------------------------------------

    def override_autostop_config(
        self, down: bool = False, idle_minutes: int | None = None, wait_for: AutostopWaitFor | None = None
    ) -> None:
        """What a command's flags say wins over the file; without any of them nothing changes."""
        if not down and idle_minutes is None and wait_for is None:
            return
        self._autostop = (self._autostop or AutostopConfig()).overridden(down, idle_minutes, wait_for)

    def is_launchable(self) -> bool:
        """Whether cloud and instance type are settled."""
        return self._cloud is not None and self._instance_type is not None

    def assert_launchable(self) -> Resources:
        """The same, when settled. Raises `AssertionError`."""
        assert self.is_launchable(), f"cloud and instance type are not settled: {self}"
        return self

    def is_empty(self) -> bool:
        """Whether nothing was asked."""
        return not self.to_yaml_config()

    def extract_docker_image(self) -> str | None:
        """The image of `image_id: docker:…`, else None."""
        if self._image_id is None or len(self._image_id) != 1:
            return None
        image = next(iter(self._image_id.values()))
        return image.removeprefix("docker:") if image.startswith("docker:") else None

    def get_cost(self, seconds: float) -> float:
        """Dollars for one node. Raises `RuntimeError` without a catalog, `ValueError` when it offers no such node."""
        from skyinfra.model.offers import offers

        return offers().price(self) * seconds / 3600

    def get_accelerators_str(self) -> str:
        """`A100:8`, or `-`."""
        if not self._accelerators:
            return "-"
        return ", ".join(f"{name}:{count}" for name, count in (self.accelerators or {}).items())

    def get_spot_str(self) -> str:
        return "[Spot]" if self.use_spot else ""

    def less_demanding_than(
        self,
        other: Resources | Sequence[Resources],
        requested_num_nodes: int = 1,
        check_ports: bool = False,
        check_cloud: bool = True,
    ) -> bool:
        """Whether a request for this is served by nodes of `other` (one, or one per node)."""
        return resource_fit.fits_into(self, other, requested_num_nodes, check_ports, check_cloud)

    def should_be_blocked_by(self, blocked: Resources) -> bool:
        """Whether every field that `blocked` settles is the same here."""
        return resource_fit.is_blocked_by(self, blocked)

    def validate(self) -> None:
        """Checks that need to know the clouds' rules or this machine. Raises `ValueError`."""
        resource_fit.validate(self)

    def copy(self, **override: Any) -> Resources:
        """Another, with some constructor arguments given anew. `infra=` replaces cloud, region and zone."""
        if override.get("infra") is not None:
            override = {"cloud": None, "region": None, "zone": None, **override}
        arguments: dict[str, Any] = {
            "cloud": self._cloud,
            "instance_type": self._instance_type,
            "cpus": self._cpus,
            "memory": self._memory,
            "accelerators": self._accelerators,
            "accelerator_args": self._accelerator_args,
            "use_spot": self._use_spot,
            "job_recovery": self._job_recovery,
            "region": self._region,
            "zone": self._zone,
            "image_id": self._image_id,
            "disk_size": self._disk_size,
            "disk_tier": self._disk_tier,
            "network_tier": self._network_tier,
            "local_disk": self._local_disk,
            "max_hourly_cost": self._max_hourly_cost,
            "ports": self._ports,
            "labels": self._labels,
            "autostop": self._autostop,
            "hooks": self._hooks,
            "priority": self._priority,
            "priority_class": self._priority_class,
            "volumes": self._volumes,
            "_docker_login_config": self._docker_login_config,
            "_docker_username_for_runpod": self._docker_username_for_runpod,
            "_is_image_managed": self._is_image_managed,
            "_requires_fuse": self._requires_fuse,
            "_cluster_config_overrides": self._cluster_config_overrides,
            "_no_missing_accel_warnings": self._no_missing_accel_warnings,
        }
        unknown = set(override) - set(arguments) - {"infra"}
        if unknown:
            raise TypeError(f"Resources has no field {', '.join(sorted(unknown))}")
        return Resources(**{**arguments, **override})

    @classmethod
    def from_yaml_config(cls, config: dict[str, Any] | None) -> set[Resources] | list[Resources]:
        """The alternatives of a `resources` map: a set (any order), or a list (tried in order).

        Raises `InvalidSkyPilotConfigError` for its shape, `ValueError` for its values.
        """
        return resource_yaml.from_yaml_config(config)

    def to_yaml_config(self, redact_secrets: bool = False) -> dict[str, Any]:
        """The `resources` map that means this; only what was said. Registry credentials are never in it."""
        del redact_secrets  # nothing secret is written in either case
        return resource_yaml.to_yaml_config(self)

    @property
    def repr_with_region_zone(self) -> str:
        """The printed form, with the place."""
        place = self._zone or self._region
        text = repr(self)
        return f"{text[:-1]}, {'zone' if self._zone else 'region'}={place})" if place else text

    def __repr__(self) -> str:
        spot = "[Spot]" if self.use_spot else ""
        parts = [f"{self._instance_type or ''}{spot}"]
        parts += [f"cpus={self._cpus}"] if self._cpus else []
        parts += [f"mem={self._memory}"] if self._memory else []
        parts += [str(self.accelerators)] if self._accelerators else []
        parts += [f"accelerator_args={self._accelerator_args}"] if self._accelerator_args else []
        if self._image_id:
            parts.append(f"image_id={self._image_id.get(None, self._image_id)}")
        parts += [f"disk_tier={self._disk_tier.value}"] if self._disk_tier else []
        parts += [f"network_tier={self._network_tier.value}"] if self._network_tier else []
        parts += [f"disk_size={self._disk_size}"] if self.disk_size_specified else []
        parts += [f"local_disk={self._local_disk}"] if self._local_disk else []
        parts += [f"ports={self._ports}"] if self._ports else []
        return f"{self._cloud or '<Cloud>'}({', '.join(p for p in parts if p)})"


def _tier(kind: Any, field: str, value: Any) -> Any:
    if value is None or isinstance(value, kind):
        return value
    with under(field):
        try:
            return kind(str(value).lower())
        except ValueError:
            raise ValueError(f"{field} {value!r} is not one of {', '.join(t.value for t in kind)}") from None


def _positive(field: str, value: Any) -> float | None:
    if value is None:
        return None
    with under(field):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
            raise ValueError(f"{field} {value!r} must be a number above 0")
    return value
