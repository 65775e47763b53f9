"""What the ssh cloud can do, and what is known of its pools without a network. No Pulumi: the server asks too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from skyinfra.model.exceptions import InvalidSkyPilotConfigError
from skyinfra.model.home import Home
from skyinfra.model.ssh_pools import FILE_NAME, Pools, read_pools
from skyinfra.stacks.clouds.failures import CloudError
from skyinfra.stacks.files import make_private_dir, read_json, write_json

__all__ = ["FACTS", "forget_seen", "load_pools", "load_seen", "pools_path", "save_seen"]

FACTS: dict[str, Any] = {
    # No stop: a machine that is not ours to switch off has nothing that a stop would save (SkyPilot refuses it, too).
    "capabilities": ["autostop", "multi_node", "ports"],
    "visibility_delay_s": 0.0,
    "provider_retries": 0,
    "attempt_deadline_s": 120.0,
    "machine_types": ["skyinfra:ssh:Machine"],
    "own": True,
}


def pools_path(home: Home) -> Path:
    return home.root / FILE_NAME


def load_pools(home: Home) -> Pools:
    """The declared pools. Raises `CloudError` (user) that names file, line and key."""
    try:
        return read_pools(pools_path(home))
    except InvalidSkyPilotConfigError as exc:
        raise CloudError("user", str(exc).replace("\n", "; "), "ssh") from exc
    except OSError as exc:
        raise CloudError("user", f"{pools_path(home)} cannot be read: {exc.strerror}", "ssh") from exc


def _seen_path(home: Home, pool: str) -> Path:
    return home.root / "ssh" / "pools" / f"{pool}.json"


def load_seen(home: Home, pool: str) -> dict[str, dict[str, Any]] | None:
    """By host, ``{facts, problem, at}`` as `ssh up` found it; None: it was not brought up."""
    try:
        return read_json(_seen_path(home, pool))
    except json.JSONDecodeError:
        return None  # torn by a full disk: `ssh up` writes it again


def save_seen(home: Home, pool: str, seen: dict[str, dict[str, Any]]) -> None:
    make_private_dir(_seen_path(home, pool).parent)
    write_json(_seen_path(home, pool), seen)


def forget_seen(home: Home, pool: str) -> None:
    _seen_path(home, pool).unlink(missing_ok=True)
