"""Configuration as a value: nested keys, layers over layers, and which keys there are. Files are read elsewhere.

Layers, low to high: server, user, project, task, command line (`effective`). Maps merge and lists are replaced, except
inside a `pod_config`, where lists are appended to and entries of the same `name` merge: that is how pods are patched.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from skyinfra.model.problems import raise_problems

__all__ = [
    "LAYERS",
    "SERVER_ONLY",
    "TASK_OVERRIDES",
    "Config",
    "check_config",
    "check_task_config",
    "effective",
    "from_client",
    "merged",
]

SERVER_ONLY = (
    ("admin_policy",),
    ("allowed_clouds",),
    ("api_server",),
    ("workspaces",),
    ("db",),
    ("daemons",),
    ("metrics",),
    ("jobs", "controller", "consolidation_mode"),
    ("jobs", "controller", "controller_logs_gc_retention_hours"),
    ("jobs", "controller", "task_logs_gc_retention_hours"),
    ("serve", "controller", "consolidation_mode"),
    ("slurm", "cluster_configs"),
)
"""Keys that only the server's own file may set: from a client they are ignored."""

TASK_OVERRIDES = (
    ("docker", "run_options"),
    ("nvidia_gpus", "disable_ecc"),
    *(("ssh", k) for k in ("custom_metadata", "pod_config", "provision_timeout")),
    *(
        ("kubernetes", k)
        for k in (
            "custom_metadata",
            "pod_config",
            "provision_timeout",
            "dws",
            "kueue",
            "quota",
            "remote_identity",
            "enable_docker",
            "set_pod_resource_limits",
        )
    ),
    *(("azure", k) for k in ("remote_identity", "vpc_name")),
    *(
        ("gcp", k)
        for k in (
            "vpc_name",
            "subnet_names",
            "managed_instance_group",
            "enable_gvnic",
            "enable_gpu_direct",
            "placement_policy",
        )
    ),
    *(("vast", k) for k in ("datacenter_only", "create_instance_kwargs")),
    *(("slurm", k) for k in ("sbatch_options", "quota", "cpu_partition")),
    ("active_workspace",),
)
"""What a task's `config` may set. Others are accepted at parsing and refused when the override is applied."""

LAYERS = ("user", "project", "command_line")
"""What a client sends with a request, low to high; the server's own lies below, a task's `config` under the last."""


class Config(dict[str, Any]):
    """A configuration. `get_nested(("aws", "vpc_name"), None)` never raises for what is not there."""

    def get_nested(
        self,
        keys: Sequence[str],
        default_value: Any,
        override_configs: Mapping[str, Any] | None = None,
        allowed_override_keys: Sequence[Sequence[str]] | None = None,
        disallowed_override_keys: Sequence[Sequence[str]] | None = None,
    ) -> Any:
        """The value at `keys`, once `override_configs` (a task's) lies over this.

        Raises `ValueError` for an override outside the allowed keys, or among the disallowed.
        """
        layers: Mapping[str, Any] = self
        if override_configs:
            _check_overrides(override_configs, allowed_override_keys, disallowed_override_keys)
            layers = merged(self, override_configs)
        found: Any = layers
        for key in keys:
            if not isinstance(found, Mapping) or found.get(key) is None:
                return default_value
            found = found[key]
        return found

    def set_nested(self, keys: Sequence[str], value: Any) -> None:
        """Makes the maps on the way; what is there and no map is replaced."""
        here: dict[str, Any] = self
        for key in keys[:-1]:
            if not isinstance(here.get(key), dict):
                here[key] = {}
            here = here[key]
        here[keys[-1]] = value

    def pop_nested(self, keys: Sequence[str], default_value: Any) -> Any:
        """Takes the value out, and with it maps that it leaves empty."""
        chain: list[dict[str, Any]] = [self]
        for key in keys[:-1]:
            inner = chain[-1].get(key)
            if not isinstance(inner, dict):
                return default_value
            chain.append(inner)
        value = chain[-1].pop(keys[-1], default_value)
        for outer, key in zip(reversed(chain[:-1]), reversed(keys[:-1]), strict=True):
            if not outer[key]:
                del outer[key]
        return value

    @classmethod
    def from_dict(cls, config: Mapping[str, Any] | None) -> Config:
        return cls(copy.deepcopy(dict(config or {})))


def check_config(config: Any) -> None:
    """Raises `InvalidSkyPilotConfigError` for unknown keys and values of the wrong kind, all at once."""
    from skyinfra.model.config_schema import CONFIG
    from skyinfra.model.schema_check import check

    raise_problems(check({} if config is None else config, CONFIG), "configuration")


def check_task_config(overrides: Mapping[str, Any]) -> None:
    """Raises `ValueError` naming every key of a task's `config` that a task may not set."""
    _check_overrides(overrides, TASK_OVERRIDES, None)


def effective(
    server: Mapping[str, Any], layers: Mapping[str, Any] | None, task: Mapping[str, Any] | None = None
) -> Config:
    """The configuration that a request runs under: server, user, project, task, command line.

    `layers` is what a client sent, by the names in `LAYERS`; what only the server may say is dropped from each. A user
    layer that is the server's own file (both read `config.yaml` of one state folder) counts once, since lists in a
    `pod_config` would else be appended to themselves. Raises as `check_config` and `check_task_config`.
    """
    sent = {name: from_client((layers or {}).get(name) or {}) for name in LAYERS}
    for layer in sent.values():
        check_config(layer)
    check_task_config(task or {})
    if sent["user"] == from_client(server):
        sent["user"] = Config()
    return merged(server, sent["user"], sent["project"], task, sent["command_line"])


def merged(*layers: Mapping[str, Any] | None) -> Config:
    """The layers, low to high, as one; none of them is changed. An explicit null unsets what lies below."""
    out: dict[str, Any] = {}
    for layer in layers:
        out = _over(out, layer or {}, patching=False)
    return Config(out)


def from_client(config: Mapping[str, Any]) -> Config:
    """A client's configuration without what only the server may say."""
    out = Config.from_dict(config)
    for keys in SERVER_ONLY:
        out.pop_nested(keys, None)
    return out


def _over(low: Mapping[str, Any], high: Mapping[str, Any], patching: bool) -> dict[str, Any]:
    out = copy.deepcopy(dict(low))
    for key, value in high.items():
        below = out.get(key)
        inside = patching or key == "pod_config"
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            out[key] = _over(below, value, inside)
        elif inside and isinstance(value, list) and isinstance(below, list):
            out[key] = _appended(below, value)
        else:
            out[key] = copy.deepcopy(value)
    return out


def _appended(low: list[Any], high: list[Any]) -> list[Any]:
    """Entries of the same name merge in place, the rest come behind."""
    out = copy.deepcopy(low)
    at = {e["name"]: i for i, e in enumerate(out) if isinstance(e, Mapping) and "name" in e}
    for entry in high:
        index = at.get(entry.get("name")) if isinstance(entry, Mapping) else None
        if index is None:
            out.append(copy.deepcopy(entry))
        else:
            out[index] = _over(out[index], entry, patching=True)
    return out


def _check_overrides(
    overrides: Mapping[str, Any],
    allowed: Sequence[Sequence[str]] | None,
    disallowed: Sequence[Sequence[str]] | None,
) -> None:
    def given(keys: Sequence[str]) -> bool:
        return Config(overrides).get_nested(keys, None) is not None

    for keys in disallowed or ():
        if given(keys):
            raise ValueError(f"{'.'.join(keys)} cannot be overridden by a task")
    if allowed is None:
        return
    rest = Config.from_dict(overrides)
    for keys in allowed:
        rest.pop_nested(keys, None)
    if rest:
        raise ValueError(f"{', '.join(_leaves(rest))} cannot be overridden by a task")


def _leaves(config: Mapping[str, Any], prefix: str = "") -> list[str]:
    out: list[str] = []
    for key, value in config.items():
        name = f"{prefix}{key}"
        out += _leaves(value, f"{name}.") if isinstance(value, Mapping) and value else [name]
    return out
