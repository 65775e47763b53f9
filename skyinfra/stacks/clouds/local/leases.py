"""GPU leases of the local cloud, and how often an on-demand error was given: files under ``locks/``, one flock.

A device belongs to the machine named in its lease file while that machine's folder exists; a lease of a machine that
is gone is free. The flock on ``gpus.lock`` guards every file here.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from skyinfra.model.home import Home
from skyinfra.stacks.clouds.failures import CloudError
from skyinfra.stacks.clouds.local.settings import Gpu, OnDemandError
from skyinfra.stacks.files import make_private_dir, read_json, write_json

__all__ = ["lease_gpus", "release_gpus", "use_error"]


@contextlib.contextmanager
def _locked(home: Home) -> Iterator[None]:
    make_private_dir(home.locks)
    with (home.locks / "gpus.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _lease_path(home: Home, gpu: Gpu) -> Path:
    return home.locks / f"gpu-{gpu.uuid}.json"


def _holder(home: Home, gpu: Gpu) -> str | None:
    lease = read_json(_lease_path(home, gpu))
    if lease is None or not (home.nodes / lease["machine_id"]).is_dir():
        return None
    return lease["machine_id"]


def lease_gpus(home: Home, machine_id: str, name: str, count: int, offered: tuple[Gpu, ...]) -> list[Gpu]:
    """`count` devices for this machine; what it holds already counts, so it is idempotent.

    Raises `CloudError` (capacity) when the host has too few, or too few are free.
    """
    matching = [gpu for gpu in offered if gpu.name.lower() == name.lower()]
    if len(matching) < count:
        raise CloudError("capacity", f"asked for {count} {name}, this host has {len(matching)}", "local")
    with _locked(home):
        held = [gpu for gpu in matching if _holder(home, gpu) == machine_id]
        free = [gpu for gpu in matching if _holder(home, gpu) is None]
        if len(held) + len(free) < count:
            words = f"asked for {count} {name}, {len(free)} of {len(matching)} are free on this host"
            raise CloudError("capacity", words, "local")
        leased = (held + free)[:count]
        for gpu in leased:
            write_json(_lease_path(home, gpu), {"machine_id": machine_id, "uuid": gpu.uuid})
    return leased


def release_gpus(home: Home, machine_id: str) -> None:
    """Give back what this machine holds. Idempotent."""
    if not home.locks.is_dir():
        return
    with _locked(home):
        for path in home.locks.glob("gpu-*.json"):
            lease = read_json(path)
            if lease and lease["machine_id"] == machine_id:
                path.unlink()


def use_error(home: Home, wanted: OnDemandError) -> bool:
    """Whether this on-demand error has uses left; takes one."""
    key = hashlib.sha256(repr(wanted).encode()).hexdigest()[:12]
    with _locked(home):
        path = home.locks / "local-errors.json"
        try:
            used = read_json(path) or {}
        except json.JSONDecodeError:
            used = {}
        if used.get(key, 0) >= wanted.count:
            return False
        write_json(path, {**used, key: used.get(key, 0) + 1})
    return True
