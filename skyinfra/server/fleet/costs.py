"""``cost_report``: what clusters cost, also those that are gone, from the intervals in which their machines ran."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from skyinfra.server.fleet.clusters import Clusters, resources_str
from skyinfra.server.identity import Principal
from skyinfra.store import costs as rows
from skyinfra.store.database import Database

__all__ = ["Costs"]

DEFAULT_DAYS = 30
DAY_S = 86400.0
HOUR_S = 3600.0


class Costs:
    def __init__(self, db: Database, clusters: Clusters, clock: Callable[[], float] = time.time) -> None:
        self._db = db
        self._clusters = clusters
        self._clock = clock

    async def report(self, principal: Principal, body: dict[str, Any]) -> bytes:
        """Records as a JSON array: clusters that exist, or ended within the last `days`. Raises `ValueError`."""
        days = DEFAULT_DAYS if body["days"] is None else body["days"]
        if days <= 0:
            raise ValueError(f"days: must be more than 0, not {days}")
        now = self._clock()
        mine = None if body["all_users"] else principal.user_id
        found = await self._db.read(lambda db: rows.since(db, now - days * DAY_S, mine))
        states = {row.id: row.status for row in await self._clusters.all()}
        workspace = body.get("workspace")
        shown = [
            _record(row, states.get(row.cluster_id), now)
            for row in found
            if row.workspace not in principal.barred and workspace in (None, row.workspace)
        ]
        return json.dumps(shown).encode()


def _record(row: Any, status: str | None, now: float) -> dict[str, Any]:
    slot = row.spec["slots"][0]
    short, full = resources_str(row.spec)
    ran_s = sum((now if ended is None else ended) - begun for begun, ended in row.intervals)
    return {
        "name": row.name,
        "launched_at": None if row.launched_at is None else int(row.launched_at),
        "duration": int(ran_s),
        "last_use": row.last_use,
        "num_nodes": len(row.spec["slots"]),
        "resources": row.resources,
        "cluster_hash": row.cluster_id,
        "usage_intervals": row.intervals,
        "total_cost": row.price_per_hour * ran_s / HOUR_S,
        "cloud": row.spec["cloud"],
        "region": row.spec.get("region"),
        "cpus": f"{slot['cpus']:g}",
        "memory": f"{slot['memory_gb']:g}",
        "accelerators": json.dumps({slot["gpus"][0]: slot["gpus"][1]}) if slot["gpus"] else None,
        "resources_str": short,
        "resources_str_full": full,
        "status": status,
        "cost_per_hour": row.price_per_hour,
        "user_hash": row.user_id,
        "user_name": row.user_name,
        "workspace": row.workspace,
    }
