"""Which clouds a request may use, and what they offer: the catalogs of the enabled ones, live where they say so."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from skyinfra.catalog.catalog import Catalog
from skyinfra.catalog.pool import PoolCatalog
from skyinfra.catalog.sources import Sources
from skyinfra.model.config import Config
from skyinfra.model.exceptions import NoCloudAccessError, with_hint
from skyinfra.model.home import Home
from skyinfra.model.resources import Resources
from skyinfra.model.spec import ClusterSpec
from skyinfra.server.fleet.ports import Cloud, Resolves, Standing
from skyinfra.stacks.clouds.failures import CloudError

__all__ = ["Clouds", "machines_of", "observe_clouds"]

FALLBACK = "local"
"""Used when it is named, or when no other cloud is enabled."""


class Clouds:
    """Every call may ask a cloud: run it in a thread."""

    def __init__(self, home: Home, clouds: Mapping[str, Cloud]) -> None:
        self._home = home
        self._clouds = clouds

    @property
    def names(self) -> tuple[str, ...]:
        """On which this version can make clusters."""
        return tuple(self._clouds)

    def __getitem__(self, name: str) -> Cloud:
        """Raises `NoCloudAccessError` for one that this version does not know."""
        found = self._clouds.get(name)
        if found is None:
            raise NoCloudAccessError(
                f"this skyinfra cannot make clusters on {name}; it can on: {', '.join(self.names)}"
            )
        return found

    def resolve(self, spec: ClusterSpec, wanted: Mapping[str, Any], config: Config) -> ClusterSpec:
        """The spec with what its cloud must look up pinned. Raises `CloudError`."""
        cloud = self[spec.cloud]
        if not isinstance(cloud, Resolves):
            return spec
        return cloud.resolve(spec, wanted, config.get_nested((spec.cloud,), None) or {})

    def standing(self, name: str, config: Config, *, thorough: bool = False) -> Standing:
        """Whether clusters may be made there now: the server's `allowed_clouds`, then the cloud's own word."""
        allowed = _allowed(config)
        if allowed is not None and name not in allowed:
            return Standing(False, f"not allowed: allowed_clouds names {', '.join(sorted(allowed)) or 'none'}")
        return self[name].check() if thorough else self[name].standing()

    def enabled(self, config: Config) -> tuple[str, ...]:
        """Usable and, where the server's `allowed_clouds` says so, allowed. Raises `NoCloudAccessError` for none."""
        standings = {name: self.standing(name, config) for name in self.names}
        enabled = tuple(name for name, one in standings.items() if one.enabled)
        if not enabled:
            allowed = _allowed(config)
            if allowed is None or allowed & set(self.names):
                reasons = "; ".join(f"{name}: {one.reason}" for name, one in standings.items())
                raise NoCloudAccessError(f"no cloud is enabled: {reasons}")
            raise with_hint(
                NoCloudAccessError(f"no cloud is enabled: allowed_clouds names {', '.join(sorted(allowed)) or 'none'}"),
                f"clusters can be made on: {', '.join(self.names)}; see allowed_clouds in the server's config.yaml",
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
            reasons = [f"{name}: {self.standing(name, config).reason}" for name in asked if name in self._clouds]
            raise with_hint(
                NoCloudAccessError(
                    f"the task asks for {' or '.join(asked)}, which is not enabled; enabled: {', '.join(enabled)}"
                ),
                "; ".join([*reasons, f"use `infra: {enabled[0]}`, or leave infra out"]),
            )
        return left if isinstance(alternatives, list) else set(left)

    def catalog(self, config: Config, alternatives: Iterable[Resources] = ()) -> Catalog:
        """The offers of the enabled clouds. Raises as `enabled`.

        With `alternatives` the local cloud counts only if one of them names it or there is no other.
        """
        enabled, asked = self.enabled(config), list(alternatives)
        named = any(one.cloud is not None and str(one.cloud).lower() == FALLBACK for one in asked)
        if asked and not named and set(enabled) != {FALLBACK}:
            enabled = tuple(name for name in enabled if name != FALLBACK)
        return self._catalog(enabled)

    def everything(self) -> Catalog:
        """The offers of every cloud that has data, enabled or not, and of what is there live."""
        return self._catalog(None)

    def host(self, config: Config) -> str | None:
        """What this host has, in words; None where the local cloud may not be used."""
        if FALLBACK not in self.enabled(config):
            return None
        return self.standing(FALLBACK, config).reason

    def _catalog(self, clouds: Iterable[str] | None) -> Catalog:
        chosen = None if clouds is None else tuple(clouds)
        wanted = self.names if chosen is None else [name for name in self.names if name in chosen]
        live = [PoolCatalog(name, machines) for name in wanted if (machines := self[name].machines()) is not None]
        return Catalog.from_sources(Sources.of_home(self._home.root), chosen, live)


def machines_of(clouds: Clouds, cluster: Any) -> list[dict[str, Any]]:
    """What the cluster's cloud shows of it, by tag. Raises what the cloud raises: no answer is not "nothing there"."""
    region = cluster.spec.get("region")
    return clouds[cluster.spec["cloud"]].observe(cluster.stack, (region,) if region else ())


def observe_clouds(clouds: Clouds, rows: Iterable[Any]) -> tuple[dict[str, list[dict[str, Any]]], dict[str, str]]:
    """What there is of all these clusters, by stack, with one look per cloud; and what went wrong, by cloud."""
    regions: dict[str, set[str]] = {}
    for row in rows:
        regions.setdefault(row.spec["cloud"], set()).update(filter(None, [row.spec.get("region")]))
    seen: dict[str, list[dict[str, Any]]] = {}
    failed: dict[str, str] = {}
    for name, where in regions.items():
        try:
            for machine in clouds[name].observe(None, sorted(where)):
                seen.setdefault(machine["cluster"], []).append(machine)
        except (CloudError, NoCloudAccessError) as error:
            failed[name] = error.words if isinstance(error, CloudError) else str(error)
    return seen, failed


def _allowed(config: Config) -> set[str] | None:
    names = config.get_nested(("allowed_clouds",), None)
    return None if names is None else {str(name).lower() for name in names}
