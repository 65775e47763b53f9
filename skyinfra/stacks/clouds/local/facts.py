"""What the local cloud can do and how much of it this host has. No Pulumi: the server asks too."""

from __future__ import annotations

from typing import Any

from skyinfra.model.home import Home
from skyinfra.stacks.clouds.local.settings import load_settings

__all__ = ["FACTS", "capacity"]

FACTS: dict[str, Any] = {
    "capabilities": ["stop", "autostop", "spot", "multi_node", "ports"],
    "regions": ["local"],
    "visibility_delay_s": 0.0,
    "provider_retries": 0,
    "attempt_deadline_s": 60.0,
    "machine_types": ["skyinfra:local:Machine"],
    "own": True,
}


def capacity(home: Home) -> dict[str, Any]:
    """``{cpus, memory_gb, gpus: {NAME: count}}`` that the host offers. Raises `ValueError` for a bad local.yaml."""
    settings = load_settings(home)
    gpus: dict[str, int] = {}
    for gpu in settings.gpus:
        gpus[gpu.name] = gpus.get(gpu.name, 0) + 1
    return {"cpus": settings.cpus, "memory_gb": settings.memory_gb, "gpus": gpus}
