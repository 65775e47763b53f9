"""What a worker asks of its cluster's cloud beside the engine: what is there by tag, and to delete what should not be.

A cloud is found by the spec; where that is lost, by what the state holds. Clouds that have regions (``regional`` in
their facts) are asked in the cluster's own.
"""

from __future__ import annotations

import importlib
import time
from typing import Any

from skyinfra.model.home import Home
from skyinfra.model.spec import ClusterSpec
from skyinfra.stacks.backend import State
from skyinfra.stacks.consent import KEEPSAKES

__all__ = ["CloudSide", "cloud_of"]

POLL_S = 0.2


def cloud_of(spec: ClusterSpec | None, state: State | None) -> str:
    """The cloud's name; ``local`` when nothing says another."""
    if spec is not None:
        return spec.cloud
    for resource in state.resources if state else []:
        package, _, rest = resource["type"].partition(":")
        if resource["type"] in KEEPSAKES:
            return rest.partition(":")[0] if package == "skyinfra" else package
    return "local"


class CloudSide:
    """One cluster's. Every call may raise `CloudError`."""

    def __init__(self, home: Home, stack: str, spec: ClusterSpec | None, state: State | None) -> None:
        self.name = cloud_of(spec, state)
        self._home = home
        self._stack = stack
        facts = self._module("facts").FACTS
        self.adopts_by_tag: bool = facts.get("adopts_by_tag", False)
        """A Create cut short is not simply done again: what it made must be found and taken over, or deleted."""
        self._delay_s: float = facts["visibility_delay_s"]
        self._regions = _regions(spec, state)
        self._where: list[list[str]] = [self._regions] if facts.get("regional") else []

    def observe(self) -> list[dict[str, Any]]:
        return self._module("observe").observe(self._home, self._stack, self._regions)

    def observe_after(self, state: State | None) -> list[dict[str, Any]]:
        """As `observe`; while a machine whose Create had begun does not show, for the cloud's visibility delay."""
        begun = [one for one in state.pending if one["resource"]["type"] in KEEPSAKES] if state else []
        deadline = time.monotonic() + self._delay_s
        while True:
            found = self.observe()
            known = {resource.get("id") for resource in state.resources} if state else set()
            unknown = [machine for machine in found if machine["id"] not in known]
            if len(unknown) >= len(begun) or time.monotonic() >= deadline:
                return found
            time.sleep(POLL_S)

    def strays(self, state: State | None) -> list[dict[str, Any]]:
        """What carries the cluster's tag, is no machine, and is not in the state: `{kind, id, name, …}`."""
        look = getattr(self._module("observe"), "observe_strays", None)
        if look is None:
            return []
        known = {resource.get("id") for resource in state.resources} if state else set()
        found = look(self._home, self._stack, *self._where)
        return [one for one in found if not {one["id"], one["name"]} & known]

    def delete(self, identifier: str) -> None:
        self._module("machine").delete(self._home, identifier, *self._where)

    def delete_stray(self, stray: dict[str, Any]) -> None:
        self._module("machine").delete_stray(self._home, stray)

    def _module(self, name: str) -> Any:
        return importlib.import_module(f"skyinfra.stacks.clouds.{self.name}.{name}")


def _regions(spec: ClusterSpec | None, state: State | None) -> list[str]:
    if spec is not None and spec.region:
        return [spec.region]
    providers = [one for one in (state.resources if state else []) if one["type"].startswith("pulumi:providers:")]
    found = {str(one.get("inputs", {}).get("region") or "") for one in providers}
    return sorted(found - {""})
