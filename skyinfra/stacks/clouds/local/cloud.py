"""The local cloud as the server asks about it: this host, always there, and how much of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from skyinfra.catalog.offers import Offer
from skyinfra.model.home import Home
from skyinfra.stacks.clouds.local import observe
from skyinfra.stacks.clouds.local.facts import FACTS, capacity
from skyinfra.stacks.clouds.registry import Standing

__all__ = ["LocalCloud", "open_cloud"]


class LocalCloud:
    """Implements `registry.Cloud`."""

    name = "local"
    capabilities = frozenset(FACTS["capabilities"])

    def __init__(self, home: Home) -> None:
        self._home = home

    def standing(self) -> Standing:
        try:
            has = capacity(self._home)
        except ValueError as error:
            return Standing(False, str(error))
        gpus = ", ".join(f"{name}:{count}" for name, count in sorted(has["gpus"].items())) or "no GPUs"
        return Standing(True, f"this host has {has['cpus']:g} CPUs, {has['memory_gb']:g} GB of memory, {gpus}", has)

    def check(self) -> Standing:
        return self.standing()

    def machines(self) -> Sequence[Offer]:
        """This host: without accelerators, and once with each kind that it has. It costs nothing."""
        has = capacity(self._home)
        kinds: list[tuple[str | None, int]] = [(None, 0), *sorted(has["gpus"].items())]
        return [
            Offer(
                cloud="local",
                instance_type="local",
                vcpus=float(has["cpus"]),
                memory_gib=float(has["memory_gb"]),
                accelerator=name,
                accelerator_count=float(count),
                accelerator_memory_gib=None,
                region="local",
                zones=(),
                price=0.0,
                spot_price=0.0,
            )
            for name, count in kinds
        ]

    def observe(self, stack: str | None = None, regions: Sequence[str] = ()) -> list[dict[str, Any]]:
        return observe.observe(self._home, stack)


def open_cloud(home: Home) -> LocalCloud:
    return LocalCloud(home)
