"""Which clouds a request may use, and what they offer: the catalogs of those that are enabled, the local one live."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from skyinfra.catalog.catalog import Catalog
from skyinfra.catalog.offers import Offer
from skyinfra.catalog.pool import PoolCatalog
from skyinfra.catalog.sources import Sources
from skyinfra.model.config import Config
from skyinfra.model.exceptions import NoCloudAccessError, with_hint
from skyinfra.model.home import Home
from skyinfra.model.resources import Resources
from skyinfra.server.fleet.ports import Cloud

__all__ = ["Clouds"]

USABLE = ("local",)
"""Clouds on which this version can make clusters."""


class Clouds:
    """Every call may ask the host: run it in a thread."""

    def __init__(self, home: Home, local: Cloud) -> None:
        self._home = home
        self._local = local

    def enabled(self, config: Config) -> tuple[str, ...]:
        """Usable and, where the server's `allowed_clouds` says so, allowed. Raises `NoCloudAccessError` for none."""
        allowed = config.get_nested(("allowed_clouds",), None)
        if allowed is None:
            return USABLE
        names = {str(name).lower() for name in allowed}
        enabled = tuple(cloud for cloud in USABLE if cloud in names)
        if not enabled:
            raise with_hint(
                NoCloudAccessError(f"no cloud is enabled: allowed_clouds names {', '.join(sorted(names)) or 'none'}"),
                f"clusters can be made on: {', '.join(USABLE)}; add it to allowed_clouds in the server's config.yaml",
            )
        return enabled

    def reachable(self, alternatives: Iterable[Resources], config: Config) -> list[Resources] | set[Resources]:
        """The alternatives that enabled clouds may serve, in the same kind of collection (a list is `ordered`).

        Raises `NoCloudAccessError` when each of them names a cloud that is not enabled.
        """
        enabled, given = self.enabled(config), list(alternatives)
        left = [one for one in given if one.cloud is None or str(one.cloud).lower() in enabled]
        if given and not left:
            asked = sorted({str(one.cloud).lower() for one in given})
            raise with_hint(
                NoCloudAccessError(
                    f"the task asks for {' or '.join(asked)}, which is not enabled; enabled: {', '.join(enabled)}"
                ),
                f"use `infra: {enabled[0]}`, or leave infra out",
            )
        return left if isinstance(alternatives, list) else set(left)

    def catalog(self, config: Config) -> Catalog:
        """The offers of the enabled clouds. Raises as `enabled`."""
        return self._catalog(self.enabled(config))

    def everything(self) -> Catalog:
        """The offers of every cloud that has data, enabled or not, and of this host."""
        return self._catalog(None)

    def host(self, config: Config) -> str | None:
        """What this host has, in words; None where the local cloud may not be used."""
        if "local" not in self.enabled(config):
            return None
        has = self._local.capacity()
        gpus = ", ".join(f"{name}:{count}" for name, count in sorted(has["gpus"].items())) or "no GPUs"
        return f"this host has {has['cpus']:g} CPUs, {has['memory_gb']:g} GB of memory, {gpus}"

    def _catalog(self, clouds: Iterable[str] | None) -> Catalog:
        local = PoolCatalog("local", _machines(self._local.capacity()))
        return Catalog.from_sources(Sources.of_home(self._home.root), clouds, [local])


def _machines(capacity: Mapping[str, Any]) -> list[Offer]:
    """This host: without accelerators, and once with each kind that it has. It costs nothing."""
    gpus: Mapping[str, int] = capacity["gpus"]
    kinds: list[tuple[str | None, int]] = [(None, 0), *sorted(gpus.items())]
    return [
        Offer(
            cloud="local",
            instance_type="local",
            vcpus=float(capacity["cpus"]),
            memory_gib=float(capacity["memory_gb"]),
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
