"""What a task asks for, read from its YAML form: pure. Refuses, by name, what cannot be carried out yet.

The client has validated the task with the same model; here only the parts are read that decide where and how it runs.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from skyinfra.catalog.local import Wish
from skyinfra.model.autostop import AutostopConfig
from skyinfra.model.exceptions import NotSupportedError
from skyinfra.model.states import LifecycleEvent

__all__ = ["Demand", "read_demand"]

_STORES = ("s3://", "gs://", "https://", "http://", "r2://", "cos://", "oci://", "nebius://", "azure://", "cw://")


@dataclass(frozen=True)
class Demand:
    """A task as the fleet sees it. Holds secrets: never logged, never stored."""

    name: str | None
    num_nodes: int
    setup: str | None
    run: str | None
    envs: dict[str, str] = field(repr=False)
    secrets: dict[str, str] = field(repr=False)
    wishes: tuple[Wish, ...]
    named_cloud: bool
    ports: tuple[str, ...]
    labels: dict[str, str]
    autostop: AutostopConfig | None
    """From the YAML; None = nothing said."""
    hooks: tuple[dict[str, Any], ...] | None
    """From the YAML's `config.hooks`; None = nothing said."""
    machine: dict[str, Any]
    """`image_id`, `disk_tier` and `network_tier` as asked, for the cloud to resolve."""
    config: dict[str, Any]
    """The task's own `config`."""
    config_hash: str
    """Of everything that provisioning and setup depend on."""

    @property
    def accelerators_per_node(self) -> float:
        """As asked, fractions included: what one job takes of a node."""
        return self.wishes[0].accelerator[1] if self.wishes[0].accelerator else 0.0


def read_demand(task: dict[str, Any]) -> Demand:
    """Raises `NotSupportedError` or `ValueError`. Whether a named cloud is enabled is `placement`'s to say."""
    num_nodes = int(task.get("num_nodes") or 1)
    alternatives = _alternatives(task.get("resources") or {})
    _check_mounts(task)
    first = alternatives[0]
    return Demand(
        name=task.get("name"),
        num_nodes=num_nodes,
        setup=task.get("setup"),
        run=task.get("run"),
        envs=_strings(task.get("envs")),
        secrets=_strings(task.get("secrets")),
        wishes=tuple(wish for resources in alternatives for wish in _wishes(resources)),
        named_cloud=any(_cloud_of(resources) is not None for resources in alternatives),
        ports=tuple(str(port) for port in _as_list(first.get("ports"))),
        labels=_strings(first.get("labels")),
        autostop=AutostopConfig.from_yaml_config(first.get("autostop")),
        hooks=_hooks((task.get("config") or {}).get("hooks")),
        machine={name: first.get(name) for name in ("image_id", "disk_tier", "network_tier")},
        config=first.get("_cluster_config_overrides") or {},
        config_hash=_config_hash(task),
    )


def _alternatives(resources: Any) -> list[dict[str, Any]]:
    """`any_of` and `ordered` spread over the rest of the section; a list is a list of alternatives."""
    if isinstance(resources, list):
        return [dict(part) for part in resources] or [{}]
    base = {k: v for k, v in resources.items() if k not in ("any_of", "ordered")}
    parts = resources.get("ordered") or resources.get("any_of") or [{}]
    return [{**base, **part} for part in parts]


def _wishes(resources: dict[str, Any]) -> list[Wish]:
    cloud = _cloud_of(resources)
    if resources.get("image_id") and cloud in (None, "local"):
        raise NotSupportedError(f"image_id: {resources['image_id']}: the local cloud runs no images")
    asked = _accelerators(resources.get("accelerators"))
    return [
        Wish(
            cpus=_figure(resources.get("cpus")),
            memory_gb=_figure(resources.get("memory")),
            accelerator=accelerator,
            disk_gb=int(resources.get("disk_size") or 256),
            spot=bool(resources.get("use_spot")),
            cloud=cloud,
        )
        for accelerator in asked or [None]
    ]


def _cloud_of(resources: dict[str, Any]) -> str | None:
    named = resources.get("infra") or resources.get("cloud")
    if named is None or str(named).startswith("*"):
        return None
    return str(named).partition("/")[0].lower()


def _figure(value: Any) -> float | None:
    """`4`, `"4+"`, `"16GB"`: the least that will do. (`"8x"`, a multiple of the CPUs, is a wish for clouds.)"""
    if value is None:
        return None
    text = str(value).strip().lower().rstrip("+").removesuffix("gb").removesuffix("g")
    return None if text.endswith("x") or not text else float(text)


def _accelerators(value: Any) -> list[tuple[str, float] | None]:
    if not value:
        return []
    if isinstance(value, str):
        name, _, count = value.partition(":")
        return [(name, float(count or 1))]
    if isinstance(value, dict):
        return [(str(name), float(count if count is not None else 1)) for name, count in value.items()]
    return [pair for item in value for pair in _accelerators(item)]


def _check_mounts(task: dict[str, Any]) -> None:
    for destination, source in (task.get("file_mounts") or {}).items():
        if not isinstance(source, str) or source.startswith(_STORES):
            raise NotSupportedError(f"file_mounts: {destination}: buckets and URLs are not in skyinfra yet")
    for section in ("storage_mounts", "volumes", "service", "pool"):
        if task.get(section):
            raise NotSupportedError(f"{section}: not in skyinfra yet")


def _hooks(entries: Any) -> tuple[dict[str, Any], ...] | None:
    if entries is None:
        return None
    every = [event.value for event in LifecycleEvent]
    return tuple(
        {"run": entry["run"], "events": entry.get("events") or every, "timeout": entry.get("timeout") or 3600}
        for entry in entries
    )


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _strings(value: Any) -> dict[str, str]:
    return {str(k): "" if v is None else str(v) for k, v in (value or {}).items()}


def _config_hash(task: dict[str, Any]) -> str:
    """When it stops has no part in it: another autostop is no reason to set the cluster up again."""
    parts = {k: task.get(k) for k in ("num_nodes", "setup", "file_mounts")}
    parts["resources"] = [
        {k: v for k, v in r.items() if k != "autostop"} for r in _alternatives(task.get("resources") or {})
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()
