"""Plans for people: a preview of what an `up` would do, resource by resource, and what an hour costs before and after.

Shared by `launch --dryrun`, `diff` and `rollback`. Decides nothing and changes nothing.
"""

from __future__ import annotations

import asyncio
from typing import Any

from skyinfra.catalog.prices import CatalogOffers
from skyinfra.model.resources import Resources
from skyinfra.model.spec import ClusterSpec, Slot
from skyinfra.server.fleet.operate import Operator
from skyinfra.server.fleet.outcomes import error_of
from skyinfra.server.requests.steps import StepContext
from skyinfra.stacks.clouds.registry import is_own

__all__ = ["Planner", "spec_changes"]

#: Who and where a cluster is: never a difference worth a line.
_IDENTITY = ("server", "workspace", "stack", "name", "version")


class Planner:
    def __init__(self, operator: Operator) -> None:
        self._operator = operator
        self._offers = CatalogOffers()

    async def plan(
        self, ctx: StepContext, before: ClusterSpec | None, after: ClusterSpec, consent: tuple[str, ...] = ()
    ) -> dict[str, Any]:
        """`{cluster, exists, changes, resources, spec, refused, hourly_before, hourly_after}`.

        Raises the public error of a preview that failed.
        """
        result = await self._operator.preview(ctx, after, consent)
        if result.outcome != "succeeded":
            raise error_of(result, after.name, "preview")
        before_price, after_price = await asyncio.to_thread(
            lambda: (self._hourly(before) if before is not None else 0.0, self._hourly(after))
        )
        return {
            "cluster": after.name,
            "exists": before is not None,
            "changes": dict(vars(result.changes)),
            "resources": [dict(one) for one in result.plan],
            "spec": spec_changes(before.to_json(), after.to_json()) if before is not None else [],
            "refused": [one["name"] for one in result.plan if one["refused"]],
            "hourly_before": before_price,
            "hourly_after": after_price,
        }

    def _hourly(self, spec: ClusterSpec) -> float | None:
        """Dollars an hour; None when a price is not known. A stopped cluster's disks are not counted."""
        if spec.power == "stopped":
            return 0.0
        try:
            return sum(self._price(spec, slot) for slot in spec.slots)
        except ValueError:
            return None

    def _price(self, spec: ClusterSpec, slot: Slot) -> float:
        if is_own(spec.cloud):
            return 0.0
        where = f"{spec.cloud}/{spec.region}" if spec.region else spec.cloud
        return self._offers.price(Resources(infra=where, instance_type=slot.instance_type, use_spot=slot.spot))


def spec_changes(before: dict[str, Any], after: dict[str, Any]) -> list[dict[str, Any]]:
    """`[{property, before, after}]`; a slot's properties are named `slots[N].PROPERTY`. Pure."""
    one, other = _flat(before), _flat(after)
    return [
        {"property": name, "before": one.get(name), "after": other.get(name)}
        for name in dict.fromkeys([*one, *other])
        if one.get(name) != other.get(name)
    ]


def _flat(spec: dict[str, Any]) -> dict[str, Any]:
    found = {name: _plain(value) for name, value in spec.items() if name not in (*_IDENTITY, "slots")}
    for slot in spec["slots"]:
        found |= {f"slots[{slot['slot']}].{name}": _plain(value) for name, value in slot.items() if name != "slot"}
    return found


def _plain(value: Any) -> Any:
    """A tuple and the list that JSON made of it are the same value."""
    return list(value) if isinstance(value, tuple) else value
