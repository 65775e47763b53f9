"""skyinfra: SkyPilot's API, Pulumi's guarantees. ``import skyinfra as sky`` gives the whole public API.

Every name is looked up when it is first used (PEP 562), so that importing the package costs next to nothing and a
command loads only what it needs. `_HOMES` says where each public name lives.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES: dict[str, tuple[str, ...]] = {
    "client.clusters": (
        "autostop",
        "cancel",
        "cost_report",
        "down",
        "endpoints",
        "exec",
        "job_status",
        "launch",
        "queue",
        "start",
        "status",
        "stop",
    ),
    "client.history": (
        "adopt",
        "diff",
        "eject",
        "history",
        "orphans",
        "plan_of",
        "rollback",
        "stack_env",
        "tail_provision_logs",
    ),
    "client.logs": ("download_logs", "tail_logs"),
    "client.requests": ("api_cancel", "api_status", "get", "stream_and_get"),
    "client.config": ("reload_config",),
    "client.offers": ("optimize",),
    "client.api": ("api_info", "api_server_logs", "api_start", "api_stop"),
    "client.login": ("api_login",),
    "client.ssh_pools": ("ssh_down", "ssh_up"),
    "client.team": ("get_user_workspace", "set_preferred_workspace"),
    "client.not_yet": (
        "create_debug_dump",
        "download_debug_dump",
        "storage_delete",
        "storage_ls",
    ),
    "catalog.listing": ("list_accelerators",),
    "catalog.optimizer": ("Optimizer",),
    "model.task": ("Task",),
    "model.resources": ("Resources",),
    "model.dag": ("Dag", "DagExecution"),
    "model.storage": ("Storage", "StorageMode", "StoreType"),
    "model.service_spec": ("ServiceSpec", "SkyServiceSpec"),
    "model.handles": ("ClusterHandle",),
    "model.records": ("Record",),
    "model.requests": ("RequestId",),
    "model.states": (
        "ClusterStatus",
        "FileMountType",
        "JobStatus",
        "ManagedJobStatus",
        "OptimizeTarget",
        "RequestStatus",
        "StatusRefreshMode",
    ),
    "model.config": ("Config",),
    "model.policy": ("AdminPolicy", "AdminPolicyRequestName", "MutatedUserRequest", "UserRequest"),
    "model.recovery": ("JOBS_RECOVERY_STRATEGY_REGISTRY",),
    "model.clouds": (
        "AWS",
        "CLOUD_REGISTRY",
        "GCP",
        "IBM",
        "OCI",
        "SCP",
        "SSH",
        "Azure",
        "Cudo",
        "Fluidstack",
        "Hyperbolic",
        "K8s",
        "Kubernetes",
        "Lambda",
        "Local",
        "Mithril",
        "Nebius",
        "Paperspace",
        "PrimeIntellect",
        "RunPod",
        "Seeweb",
        "Shadeform",
        "Slurm",
        "Vast",
        "Verda",
        "Vsphere",
        "Yotta",
    ),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
_MODULES = {"exceptions": "exceptions", "clouds": "model.clouds", "sdk_async": "client.sdk_async"}
_PRICED = ("model.task", "model.resources", "model.dag")
"""Who has one of these may ask what it costs."""

__all__ = ["__version__", "clouds", "exceptions", "sdk_async", *_HOME_OF]


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        if _HOME_OF[name] in _PRICED:
            _know_prices()
        value = getattr(import_module(f"skyinfra.{_HOME_OF[name]}"), name)
    elif name in _MODULES:
        value = import_module(f"skyinfra.{_MODULES[name]}")
    else:
        raise AttributeError(f"module 'skyinfra' has no attribute {name!r}")
    globals()[name] = value
    return value


def _know_prices() -> None:
    """Give `model` a catalog to ask; nothing of it is loaded before the first question."""
    from skyinfra.catalog.prices import CatalogOffers
    from skyinfra.model import offers

    if not offers.known():
        offers.set_offers(CatalogOffers())


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
