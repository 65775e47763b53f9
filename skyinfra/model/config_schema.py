"""Which keys a configuration may have, in the dialect of `schema_check`; `config` says what is done with them.

Children are listed where SkyPilot 0.14.1 lists them, and what they hold is checked where it is certain. Sections of
clouds with a smaller or freer set of keys (`ssh`, `slurm`, `oci`, `vast`, `nebius`) are open maps.
"""

from __future__ import annotations

from typing import Any

from skyinfra.model.schema import HOOKS

__all__ = ["CONFIG"]

Schema = dict[str, Any]

_ANY: Schema = {}
_TEXT: Schema = {"type": ["string", "null"]}
_FLAG: Schema = {"type": ["boolean", "null"]}
_NUMBER: Schema = {"type": ["number", "null"]}
_OPEN: Schema = {"type": ["object", "null"]}
_TEXT_MAP: Schema = {"type": ["object", "null"], "additionalProperties": {"type": "string"}}
_TEXTS: Schema = {"type": ["array", "null"], "items": {"type": "string"}}


def _map(title: str, any_kind: str = "", **typed: Schema) -> Schema:
    """A map with these keys only: `any_kind` names those whose value is not checked here."""
    properties = {**dict.fromkeys(any_kind.split(), _ANY), **typed}
    return {"type": ["object", "null"], "title": title, "additionalProperties": False, "properties": properties}


_CONTROLLER = "resources high_availability autostop consolidation_mode"
_IDENTITIES = "remote_identity labels capabilities"
_RESERVED = "prioritize_reservations specific_reservations"

_SECTIONS: dict[str, Schema] = {
    "api_server": _map(
        "api_server",
        endpoint=_TEXT,
        service_account_token=_TEXT,
        requests_retention_hours=_NUMBER,
        logs_retention_hours=_NUMBER,
        cluster_event_retention_hours=_NUMBER,
        cluster_debug_event_retention_hours=_NUMBER,
        cluster_terminal_event_retention_hours=_NUMBER,
        launch_attempt_retention_hours=_NUMBER,
        daemon_log_max_bytes=_NUMBER,
    ),
    "jobs": _map(
        "jobs",
        "bucket",
        controller=_map(
            "jobs.controller",
            f"{_CONTROLLER} controller_logs_gc_retention_hours task_logs_gc_retention_hours",
        ),
        force_disable_cloud_bucket=_FLAG,
        status_check=_map("jobs.status_check", min_elapsed_seconds=_NUMBER, min_retries=_NUMBER),
    ),
    "serve": _map("serve", "bucket", controller=_map("serve.controller", _CONTROLLER)),
    "rbac": _map("rbac", "roles", default_role=_TEXT, restrict_config_to_admins=_FLAG),
    "logs": _map("logs", "gcp aws", store=_TEXT),
    "provision": _map("provision", ssh_timeout=_NUMBER, install_conda=_FLAG),
    "docker": _map("docker", run_options={"type": ["array", "string", "null"], "items": {"type": "string"}}),
    "nvidia_gpus": _map("nvidia_gpus", disable_ecc=_FLAG),
    "aws": _map(
        "aws",
        f"vpc_name vpc_names subnet_names security_group_name ssh_proxy_command ssh_user disk_encrypted {_RESERVED}"
        f" {_IDENTITIES} enforce_tags post_provision_runcmd",
        use_internal_ips=_FLAG,
        use_ssm=_FLAG,
        labels=_TEXT_MAP,
    ),
    "gcp": _map(
        "gcp",
        f"vpc_name subnet_names ssh_proxy_command {_RESERVED} {_IDENTITIES} placement_policy enable_gpu_direct",
        use_internal_ips=_FLAG,
        force_enable_external_ips=_FLAG,
        enable_gvnic=_FLAG,
        labels=_TEXT_MAP,
        managed_instance_group=_map("gcp.managed_instance_group", "run_duration provision_timeout"),
    ),
    "azure": _map("azure", "storage_account resource_group_vm vpc_name remote_identity"),
    "kubernetes": _map(
        "kubernetes",
        "allowed_contexts allowed_nodes networking ports provision_timeout namespace autoscaler high_availability kueue"
        " quota dws remote_identity rdma pricing auto_mounts enable_docker set_pod_resource_limits"
        " post_provision_runcmd apt_mirrors max_inline_command_length",
        context_configs=_OPEN,
        pod_config=_OPEN,
        custom_metadata=_OPEN,
    ),
}

_OPEN_SECTIONS = (
    *("workspaces", "workspace_config", "daemons", "plugins", "data", "dashboard", "metrics"),
    *("ssh", "slurm", "oci", "vast", "nebius"),
)

CONFIG: Schema = {
    "type": "object",
    "title": "the configuration",
    "additionalProperties": False,
    "properties": {
        **_SECTIONS,
        **dict.fromkeys(_OPEN_SECTIONS, _OPEN),
        "db": {"type": ["string", "object", "null"]},
        "active_workspace": _TEXT,
        "admin_policy": _TEXT,
        "allowed_clouds": _TEXTS,
        "hooks": {**HOOKS, "type": ["array", "null"]},
    },
}
