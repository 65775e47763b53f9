"""What a launch says about the end of its cluster: pure. Stopping comes later; going down when idle is here."""

from __future__ import annotations

from typing import Any

from skyinfra.model.exceptions import NotSupportedError, with_hint
from skyinfra.server.fleet.demand import Demand

__all__ = ["autostop_of"]


def autostop_of(body: dict[str, Any], demand: Demand) -> int | None:
    """Idle minutes until the cluster goes down, -1 to call that off, None when nothing was said.

    Raises `NotSupportedError` for a stop that keeps the disk.
    """
    minutes, down = body.get("idle_minutes_to_autostop"), bool(body.get("down"))
    if minutes is None and demand.autostop_minutes is not None:
        minutes, down = demand.autostop_minutes, down or demand.autostop_down
    if minutes is None:
        return 1 if down else None
    if minutes < 0:
        return -1
    if not down:
        raise with_hint(
            NotSupportedError("autostop that keeps the disk is not in skyinfra yet; autodown is"),
            "add `--down` (in YAML: `autostop: {idle_minutes: N, down: true}`) to remove the idle cluster",
        )
    return max(1, minutes)
