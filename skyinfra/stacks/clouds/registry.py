"""The clouds on which clusters can be made, and what the server asks about each. No Pulumi, and cheap to import.

A cloud is a package ``clouds/<name>/``: ``cloud.py`` with ``open_cloud(home) -> Cloud`` for the server, ``observe.py``
and ``errors.py`` for the worker, ``program.py`` (the only one that may import Pulumi) for the stack. ``cloud.py``
imports a cloud's own SDK where it is first needed, never at the top.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from skyinfra.catalog.offers import Offer
from skyinfra.model.home import Home
from skyinfra.model.spec import ClusterSpec

if TYPE_CHECKING:
    from skyinfra.channels.ssh_target import SshTarget

__all__ = [
    "CLOUDS",
    "Cloud",
    "Reachable",
    "Resolves",
    "Standing",
    "can",
    "ensure_plugin",
    "env_names",
    "is_own",
    "open_clouds",
]

CLOUDS = ("local", "ssh", "aws")
"""By name, in the order in which they are shown."""


@dataclass(frozen=True)
class Standing:
    """Whether clusters can be made there now. `reason`: what there is, or why not, in one line for people."""

    enabled: bool
    reason: str
    details: Mapping[str, Any] = field(default_factory=dict)


class Cloud(Protocol):
    """Every call may block: run it in a thread. Credentials that fail raise; they never look like "nothing there"."""

    name: str
    capabilities: frozenset[str]
    """Of ``stop autostop spot multi_node ports``."""

    def standing(self) -> Standing:
        """At a glance, for every launch: files, and what an earlier `check` found. No network."""
        ...

    def check(self) -> Standing:
        """Thoroughly, for `skyinfra check`; what it finds `standing` knows from then on."""
        ...

    def machines(self) -> Sequence[Offer] | None:
        """What is really there, each machine whole; None: the catalog's data says what can be had.

        Raises `ValueError` for a bad settings file.
        """
        ...

    def observe(self, stack: str | None = None, regions: Sequence[str] = ()) -> list[dict[str, Any]]:
        """Machines by tag, of the cluster or of all: ``{cluster, slot, incarnation, id, state, internal_ip, …}``.

        `regions`: where to look; empty = wherever this cloud keeps machines. ``state`` is ``creating``, ``running``,
        ``stopped`` or ``deleting``; ``stopped_by`` is ``autostop`` when a node ended itself.
        """
        ...


@runtime_checkable
class Resolves(Protocol):
    """A cloud on which names stand for things that change: images, networks, groups."""

    def resolve(self, spec: ClusterSpec, wanted: Mapping[str, Any], config: Mapping[str, Any]) -> ClusterSpec:
        """The spec with these pinned, once, when a cluster is placed.

        `wanted`: of the task's resources, ``{image_id, disk_tier, network_tier}``; `config`: the configuration's
        section of this cloud. May block; raises `CloudError`.
        """
        ...


@runtime_checkable
class Reachable(Protocol):
    """A cloud whose machines are reached over SSH."""

    def locate(self, channel: Mapping[str, Any]) -> SshTarget:
        """Where the machine of a node's channel is now. May block; raises `SshFailed`."""
        ...


def _facts(cloud: str) -> Mapping[str, Any]:
    return importlib.import_module(f"skyinfra.stacks.clouds.{cloud}.facts").FACTS


def can(cloud: str, what: str) -> bool:
    """Whether a cloud has this capability; one that this version does not know has none."""
    return cloud in CLOUDS and what in _facts(cloud)["capabilities"]


def env_names(cloud: str | None) -> frozenset[str]:
    """Variables through which workers find a cloud's credentials, beside the files in the user's home. None: of all."""
    asked = CLOUDS if cloud is None else tuple(name for name in CLOUDS if name == cloud)
    return frozenset(name for one in asked for name in _facts(one).get("env_names", ()))


def ensure_plugin(cloud: str, home: Home, engine: Path, env: Mapping[str, str], tell: Callable[[str], None]) -> None:
    """The provider that a cloud's program needs beside ours is there. Raises `CloudError`."""
    if cloud in CLOUDS and _facts(cloud).get("plugin"):
        importlib.import_module(f"skyinfra.stacks.clouds.{cloud}.plugin").ensure_plugin(home, engine, env, tell)


def is_own(cloud: str) -> bool:
    """Whether its machines are the user's own, and cost nothing by the hour."""
    return cloud in CLOUDS and bool(_facts(cloud).get("own"))


def open_clouds(home: Home) -> dict[str, Cloud]:
    """Every cloud of `CLOUDS`, by name."""
    return {name: importlib.import_module(f"skyinfra.stacks.clouds.{name}.cloud").open_cloud(home) for name in CLOUDS}
