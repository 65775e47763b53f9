"""``$SKYINFRA_HOME/local.yaml``: what the local cloud says it has, and the errors it gives on demand.

.. code-block:: yaml

   cpus: 8                  # default: the host's
   memory_gb: 16            # default: the host's
   gpus: {H100: 8}          # default: what nvidia-smi lists
   errors:                  # the first `count` creates (starts count as such) that match fail so
     - {on: create, kind: capacity, message: no capacity today, count: 1, slot: 0}
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from dataclasses import dataclass, field
from typing import Any

import yaml

from skyinfra.model.home import Home
from skyinfra.stacks.clouds.failures import KINDS

__all__ = ["Gpu", "LocalSettings", "OnDemandError", "load_settings"]

NVIDIA_SMI_TIMEOUT_S = 10
_KEYS = {"cpus", "memory_gb", "gpus", "errors"}


@dataclass(frozen=True)
class Gpu:
    """One device: its UUID (what is leased), the id jobs see it under, and its accelerator name."""

    uuid: str
    device: str
    name: str


@dataclass(frozen=True)
class OnDemandError:
    """An error that ``local.yaml`` asks for, so that failover can be tried out."""

    on: str
    kind: str
    message: str
    count: int = 1
    slot: int | None = None


@dataclass(frozen=True)
class LocalSettings:
    cpus: float
    memory_gb: float
    gpus: tuple[Gpu, ...] = ()
    errors: tuple[OnDemandError, ...] = field(default=())


def load_settings(home: Home) -> LocalSettings:
    """What the file says, else what the host has. Raises `ValueError` that names the file and the key."""
    path = home.root / "local.yaml"
    try:
        raw = yaml.safe_load(path.read_text()) or {}
    except FileNotFoundError:
        raw = {}
    except yaml.YAMLError as exc:
        raise ValueError(f"{path}: not YAML: {str(exc).splitlines()[0]}") from exc
    if not isinstance(raw, dict) or set(raw) - _KEYS:
        unknown = ", ".join(sorted(set(raw) - _KEYS)) if isinstance(raw, dict) else "not a mapping"
        raise ValueError(f"{path}: unknown key {unknown}; it knows {', '.join(sorted(_KEYS))}")
    try:
        return LocalSettings(
            cpus=float(raw["cpus"]) if "cpus" in raw else float(os.cpu_count() or 1),
            memory_gb=float(raw["memory_gb"]) if "memory_gb" in raw else _host_memory_gb(),
            gpus=_declared_gpus(raw["gpus"] or {}) if "gpus" in raw else _host_gpus(),
            errors=tuple(_error(entry) for entry in raw.get("errors") or ()),
        )
    except (TypeError, ValueError, KeyError, AttributeError) as exc:
        raise ValueError(f"{path}: {exc}") from exc


def _error(raw: dict[Any, Any]) -> OnDemandError:
    entry = {"on" if key is True else key: value for key, value in raw.items()}  # YAML 1.1 reads `on` as true
    if entry.get("kind") not in KINDS:
        raise ValueError(f"errors: kind must be one of {', '.join(sorted(KINDS))}, not {entry.get('kind')!r}")
    if entry.get("on", "create") not in ("create", "delete"):
        raise ValueError(f"errors: on must be create or delete, not {entry.get('on')!r}")
    return OnDemandError(
        on=entry.get("on", "create"),
        kind=entry["kind"],
        message=str(entry.get("message", "asked for in local.yaml")),
        count=int(entry.get("count", 1)),
        slot=entry.get("slot"),
    )


def _declared_gpus(counts: dict[str, int]) -> tuple[Gpu, ...]:
    names = [name for name, count in counts.items() for _ in range(int(count))]
    return tuple(Gpu(uuid=f"local-{i}", device=str(i), name=name) for i, name in enumerate(names))


def _host_memory_gb() -> float:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)


@functools.cache
def _host_gpus() -> tuple[Gpu, ...]:
    """What nvidia-smi lists; cached, because devices do not come and go while a process lives."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    try:
        said = subprocess.run(
            [program, "--query-gpu=uuid,index,name", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=NVIDIA_SMI_TIMEOUT_S,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ()  # a driver that does not answer offers no GPUs; `doctor` is where that is explained
    rows = [[cell.strip() for cell in line.split(",")] for line in said.splitlines() if line.count(",") >= 2]
    return tuple(Gpu(uuid=row[0], device=row[1], name=_accelerator(row[2])) for row in rows)


def _accelerator(product: str) -> str:
    """``NVIDIA H100 80GB HBM3`` -> ``H100``: the name users write."""
    words = [word for word in product.replace("-", " ").split() if word not in ("NVIDIA", "Tesla", "GeForce", "RTX")]
    return words[0] if words else product
