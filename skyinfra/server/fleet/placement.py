"""Where a new cluster may be made: candidates from the catalog, those short of late last. Makes nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from skyinfra.catalog.local import Candidate, HostCapacity, candidates
from skyinfra.model.exceptions import ResourcesUnavailableError, with_hint
from skyinfra.server.fleet.demand import Demand
from skyinfra.server.fleet.ports import Cloud
from skyinfra.store import clusters as rows
from skyinfra.store.database import Database

__all__ = ["Placement"]


class Placement:
    def __init__(self, db: Database, cloud: Cloud, clock: Callable[[], float] = time.time) -> None:
        self._db = db
        self._cloud = cloud
        self._clock = clock

    async def rank(self, demand: Demand) -> list[Candidate]:
        """Best first, never empty. Raises `ResourcesUnavailableError` with what was asked and what there is."""
        host = _capacity(await asyncio.to_thread(self._cloud.capacity))
        found, reasons = candidates(list(demand.wishes), host)
        if not found:
            have = f"{host.cpus:g} CPUs, {host.memory_gb:g} GB of memory"
            have += "".join(f", {name}:{count}" for name, count in sorted(host.gpus.items()))
            raise with_hint(
                ResourcesUnavailableError(f"the local cloud cannot offer this: {'; '.join(reasons)}"),
                f"this host has {have}",
            )
        short = await self._db.read(lambda db: rows.shortages_now(db, self._clock()))
        return sorted(found, key=lambda c: (_key(c) in short, c.price_per_hour))


def _key(candidate: Candidate) -> tuple[str, str, str]:
    what = f"{candidate.gpus[0]}:{candidate.gpus[1]}" if candidate.gpus else candidate.instance_type
    return (candidate.cloud, candidate.region, what)


def _capacity(facts: Any) -> HostCapacity:
    """From the cloud's own type (or a mapping) to the catalog's."""
    if isinstance(facts, dict):
        return HostCapacity(float(facts["cpus"]), float(facts["memory_gb"]), dict(facts.get("gpus") or {}))
    return HostCapacity(float(facts.cpus), float(facts.memory_gb), dict(facts.gpus or {}))
