"""The shape of a task file, as JSON Schema: what validates is what is published (`task_json_schema`).

Shapes and spellings only. What values mean (that a port is at most 65535, that a zone has a region) is checked where
they are parsed, with Python's `ValueError`; the split follows SkyPilot's, since users' code sees the class.
"""

from __future__ import annotations

import copy
from typing import Any

from skyinfra.model import clouds as _clouds  # noqa: F401 - registers the formats `cloud` and `infra`

__all__ = ["HOOKS", "RESOURCES", "SERVICE", "STORAGE", "TASK", "VOLUME", "task_json_schema"]

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_FLAG: Schema = {"type": "boolean"}
_WHOLE: Schema = {"type": "integer"}
_NUMBER: Schema = {"type": "number"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_TEXT_OR_NUMBER: Schema = {"type": ["string", "number"]}
_MAP: Schema = {"type": "object"}
_MAP_OF_TEXT: Schema = {"type": "object", "additionalProperties": _TEXT}


def _optional(schema: Schema) -> Schema:
    """The same, or null, which means absent."""
    if "anyOf" in schema:
        return {**schema, "anyOf": [*schema["anyOf"], {"type": "null"}]}
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    return {**schema, "type": [*kinds, "null"]}


def _map(title: str, properties: dict[str, Schema], required: tuple[str, ...] = ()) -> Schema:
    """A map with these keys only; all that are not required may be null."""
    return {
        "type": "object",
        "title": title,
        "required": list(required),
        "additionalProperties": False,
        "properties": {k: v if k in required else _optional(v) for k, v in properties.items()},
    }


_ENVS: Schema = {
    "type": "object",
    "title": "envs",
    "patternProperties": {
        "^[a-zA-Z_][a-zA-Z0-9_]*$": {"type": ["string", "number", "boolean", "null"]},
    },
    "additionalProperties": False,
}

_AUTOSTOP: Schema = {
    "anyOf": [
        _FLAG,
        _WHOLE,
        {"type": "string", "pattern": "^[0-9]+[mhdw]?$", "expected": "a time such as 30, 10m, 2h, 1d or 1w"},
        _map(
            "autostop",
            {
                "idle_minutes": _COUNT,
                "down": _FLAG,
                "wait_for": {"type": "string", "anyCase": ["jobs_and_ssh", "jobs", "none"]},
                "hook": _TEXT,
                "hook_timeout": {"type": "integer", "minimum": 1},
            },
        ),
    ]
}

_EXIT_CODE: Schema = {"type": "integer", "minimum": 0, "maximum": 255}

_JOB_RECOVERY: Schema = {
    "anyOf": [
        _TEXT,
        _map(
            "job_recovery",
            {
                "strategy": _TEXT,
                "max_restarts_on_errors": _COUNT,
                "recover_on_exit_codes": {"anyOf": [_EXIT_CODE, {"type": "array", "items": _EXIT_CODE}]},
            },
        ),
    ]
}

_ACCELERATORS: Schema = {
    "anyOf": [
        _TEXT,
        {"type": "object", "anyKey": True, "additionalProperties": {"type": ["number", "string", "null"]}},
        {"type": "array", "items": _TEXT},
    ]
}

_DISK_VOLUME: Schema = _map(
    "a volume",
    {
        "path": _TEXT,
        "name": _TEXT,
        "size": {"type": ["integer", "string"]},
        "disk_tier": _TEXT,
        "storage_type": {"type": "string", "anyCase": ["instance", "network"]},
        "attach_mode": {"type": "string", "anyCase": ["read_only", "read_write"]},
        "auto_delete": _FLAG,
    },
)

HOOKS: Schema = {
    "type": "array",
    "maxItems": 32,
    "items": _map(
        "a hook",
        {
            "run": {"type": "string", "minLength": 1, "maxLength": 16384},
            "events": {"type": "array", "items": {"type": "string", "enum": ["stop", "preemption", "down"]}},
            "timeout": {"type": "integer", "minimum": 1},
        },
        required=("run",),
    ),
}

_ONE_RESOURCE: dict[str, Schema] = {
    "infra": {"type": "string", "format": "infra"},
    "cloud": {"type": "string", "format": "cloud"},
    "region": _TEXT,
    "zone": _TEXT,
    "instance_type": _TEXT,
    "cpus": _TEXT_OR_NUMBER,
    "memory": _TEXT_OR_NUMBER,
    "accelerators": _ACCELERATORS,
    "gpus": _ACCELERATORS,
    "accelerator_args": _map(
        "accelerator_args",
        {"runtime_version": _TEXT, "tpu_name": _TEXT, "tpu_vm": _FLAG, "gcp_queued_resource": _FLAG},
    ),
    "use_spot": _FLAG,
    "job_recovery": _JOB_RECOVERY,
    "disk_size": {"type": ["integer", "string"]},
    "disk_tier": _TEXT,
    "network_tier": _TEXT,
    "local_disk": _TEXT,
    "max_hourly_cost": _NUMBER,
    "ports": {"anyOf": [_TEXT, _WHOLE, {"type": "array", "items": {"type": ["string", "integer"]}}]},
    "labels": {"type": "object", "title": "labels", "additionalProperties": _TEXT},
    "image_id": {"anyOf": [_TEXT, {"type": "object", "anyKey": True, "additionalProperties": _TEXT}]},
    "autostop": _AUTOSTOP,
    "priority": {"type": "integer", "minimum": -1000, "maximum": 1000},
    "priority_class": _TEXT,
    "volumes": {"type": "array", "items": _DISK_VOLUME},
    "hooks": {"type": ["array", "object"]},  # refused where it is parsed: it belongs under `config`
    "_cluster_config_overrides": _MAP,
    "_docker_login_config": _MAP,
    "_docker_username_for_runpod": _TEXT,
    "_is_image_managed": _FLAG,
    "_requires_fuse": _FLAG,
    "_no_missing_accel_warnings": _FLAG,
}

_ALTERNATIVES: Schema = {"type": "array", "items": _map("a resources alternative", _ONE_RESOURCE)}

RESOURCES: Schema = _map("resources", {**_ONE_RESOURCE, "any_of": _ALTERNATIVES, "ordered": _ALTERNATIVES})

_STORES = ["S3", "GCS", "AZURE", "R2", "IBM", "OCI", "NEBIUS", "COREWEAVE", "VASTDATA", "HF", "VOLUME"]

_MOUNT_CACHED: Schema = _map(
    "mount_cached",
    {
        "transfers": {"type": "integer", "minimum": 1},
        "buffer_size": {"type": ["string", "integer"]},
        "vfs_cache_max_size": {"type": ["string", "integer"]},
        "vfs_cache_max_age": {"type": ["string", "integer"]},
        "vfs_read_ahead": {"type": ["string", "integer"]},
        "vfs_read_chunk_size": {"type": ["string", "integer"]},
        "vfs_read_chunk_streams": _COUNT,
        "vfs_write_back": {"type": ["string", "integer"]},
        "read_only": _FLAG,
    },
)

STORAGE: Schema = _map(
    "a storage mount",
    {
        "name": _TEXT,
        "source": {"anyOf": [_TEXT, {"type": "array", "minItems": 1, "items": _TEXT}]},
        "store": {"type": "string", "anyCase": _STORES},
        "mode": {"type": "string", "anyCase": ["MOUNT", "COPY", "MOUNT_CACHED"]},
        "persistent": _FLAG,
        "type": _TEXT,
        "config": _map(
            "storage config",
            {
                "disk_size": {"type": ["integer", "string"]},
                "disk_tier": _TEXT,
                "storage_type": {"type": "string", "anyCase": ["instance", "network"]},
                "attach_mode": {"type": "string", "anyCase": ["read_only", "read_write"]},
                "mount_cached": _MOUNT_CACHED,
                "mount": _map("mount", {"read_only": _FLAG, "hf_mount_args": {"type": ["string", "array"]}}),
            },
        ),
        "_is_sky_managed": _FLAG,
        "_bucket_sub_path": _TEXT,
        "_force_delete": _FLAG,
    },
)

_PROBE: Schema = {
    "anyOf": [
        _TEXT,
        _map(
            "readiness_probe",
            {
                "path": _TEXT,
                "initial_delay_seconds": _NUMBER,
                "timeout_seconds": _NUMBER,
                "endpoint_probe_interval_seconds": _NUMBER,
                "consecutive_failure_threshold_timeout": _NUMBER,
                "post_data": {"type": ["string", "object"]},
                "headers": _MAP_OF_TEXT,
            },
        ),
    ]
}

_REPLICA_POLICY: Schema = _map(
    "replica_policy",
    {
        "min_replicas": _COUNT,
        "max_replicas": _COUNT,
        "num_overprovision": _COUNT,
        "target_qps_per_replica": {
            "anyOf": [
                {"type": "number", "minimum": 0},
                {"type": "object", "additionalProperties": {"type": "number", "exclusiveMinimum": 0}},
            ]
        },
        "dynamic_ondemand_fallback": _FLAG,
        "base_ondemand_fallback_replicas": _COUNT,
        "spot_placer": {"type": "string", "anyCase": ["dynamic_fallback"]},
        "upscale_delay_seconds": {"type": "number", "minimum": 0},
        "downscale_delay_seconds": {"type": "number", "minimum": 0},
    },
)

_POOL: Schema = _map(
    "pool",
    {
        "workers": _COUNT,
        "min_workers": _COUNT,
        "max_workers": _COUNT,
        "queue_length_threshold": {"type": "integer", "minimum": 1},
        "upscale_delay_seconds": {"type": "number", "minimum": 0},
        "downscale_delay_seconds": {"type": "number", "minimum": 0},
    },
)

SERVICE: Schema = _map(
    "service",
    {
        "readiness_probe": _PROBE,
        "replicas": _COUNT,
        "replica_policy": _REPLICA_POLICY,
        "ports": {"type": ["integer", "string"]},
        "load_balancing_policy": {
            "type": "string",
            "anyCase": ["least_load", "round_robin", "instance_aware_least_load"],
        },
        "load_balancer": _map("load_balancer", {"stream_timeout_seconds": {"type": "number", "exclusiveMinimum": 0}}),
        "tls": _map("tls", {"keyfile": _TEXT, "certfile": _TEXT}, required=("keyfile", "certfile")),
        "pool": _POOL,
    },
)

VOLUME: Schema = {
    "anyOf": [
        _TEXT,
        _map(
            "a volume mount",
            {
                "name": _TEXT,
                "sub_path": _TEXT,
                "size": {"type": ["string", "integer"]},
                "type": {"type": "string", "anyCase": ["k8s-pvc", "k8s-hostpath", "runpod-network-volume"]},
                "labels": _MAP_OF_TEXT,
                "config": _MAP,
                "host_path": _TEXT,
            },
        ),
    ]
}

TASK: Schema = _map(
    "task",
    {
        "name": _TEXT,
        "workdir": {"anyOf": [_TEXT, _map("workdir", {"url": _TEXT, "ref": _TEXT}, required=("url",))]},
        "num_nodes": _WHOLE,
        "resources": RESOURCES,
        "envs": _ENVS,
        "secrets": {"anyOf": [{**_ENVS, "title": "secrets"}, {"type": "array", "items": _TEXT}]},
        "managed_secrets": {
            "anyOf": [
                {"type": "array", "items": _TEXT},
                {
                    "type": "object",
                    "additionalProperties": _optional(_map("a managed secret", {"mount_path": _TEXT})),
                },
            ]
        },
        "file_mounts": {
            "type": "object",
            "title": "file_mounts",
            # null is refused where mounts are parsed, with a word on what to write
            "additionalProperties": {"anyOf": [_TEXT, STORAGE, {"type": "null"}]},
        },
        "volumes": {"type": "object", "title": "volumes", "additionalProperties": VOLUME},
        "setup": _TEXT,
        "run": _TEXT,
        "service": SERVICE,
        "pool": _POOL,
        "config": {"type": "object", "title": "config", "properties": {"hooks": _optional(HOOKS)}},
        "inputs": {"type": "object", "title": "inputs", "additionalProperties": _NUMBER},
        "outputs": {"type": "object", "title": "outputs", "additionalProperties": _NUMBER},
        "event_callback": _TEXT,
        "api_server_access": _FLAG,
        "file_mounts_mapping": _MAP,
        "volume_mounts": {"type": "array"},
        "_metadata": _MAP,
        "_user_specified_yaml": _TEXT,
        "_policy": _MAP,
    },
)


_NOT_WRITTEN = ("hooks", "file_mounts_mapping", "volume_mounts")
"""Keys that programs put in, or that are there to be refused with a word on what to write."""


def task_json_schema() -> dict[str, Any]:
    """The schema of one task document for editors: standard words only, internal keys left out."""
    out = _standard(copy.deepcopy(TASK))
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **out}


def _standard(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_standard(s) for s in schema]
    if not isinstance(schema, dict):
        return schema
    out = {k: _standard(v) for k, v in schema.items() if k not in ("anyCase", "anyKey", "format", "expected")}
    if "anyCase" in schema:
        words = [c for word in schema["anyCase"] for c in dict.fromkeys((word, word.lower(), word.upper()))]
        out["enum"] = list(dict.fromkeys(words)) + ([None] if "null" in schema.get("type", []) else [])
    if isinstance(out.get("properties"), dict):
        out["properties"] = {
            k: v
            for k, v in out["properties"].items()
            if (k[0] != "_" and k not in _NOT_WRITTEN) or (k == "hooks" and schema.get("title") == "config")
        }
    return out
