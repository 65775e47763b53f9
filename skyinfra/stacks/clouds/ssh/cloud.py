"""The ssh cloud as the server asks about it: what `ssh up` found of the pools, and who holds which machine now."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

from skyinfra.catalog.offers import Offer
from skyinfra.channels.ssh_pools import target_of
from skyinfra.channels.ssh_target import SshFailed, SshTarget
from skyinfra.model.home import Home
from skyinfra.stacks.clouds.failures import CloudError
from skyinfra.stacks.clouds.registry import Standing
from skyinfra.stacks.clouds.ssh import observe
from skyinfra.stacks.clouds.ssh.choice import accelerator_of
from skyinfra.stacks.clouds.ssh.facts import FACTS, load_pools, load_seen
from skyinfra.stacks.clouds.ssh.hosts import Hosts, Seen
from skyinfra.stacks.clouds.ssh.pools import bring_up

__all__ = ["SshCloud", "open_cloud"]

#: A launch asks for its offers more than once; machines do not come and go faster than this.
FRESH_S = 3.0


class SshCloud:
    """Implements `registry.Cloud`. Regions are pools."""

    name = "ssh"
    capabilities = frozenset(FACTS["capabilities"])

    def __init__(self, home: Home) -> None:
        self._home = home
        self._guard = threading.Lock()  # guards _offers, and lets one thread look at a time
        self._offers: tuple[float, list[Offer]] = (-FRESH_S, [])

    def standing(self) -> Standing:
        try:
            pools = load_pools(self._home)
        except CloudError as error:
            return Standing(False, error.words)
        up = self._up()
        if not pools:
            return Standing(False, "there is no pool; see docs/how-to/ssh-pool.md")
        if not up:
            return Standing(False, f"no pool is up; `skyinfra ssh up` brings up {', '.join(sorted(pools))}")
        counts = {pool: sum(1 for seen in hosts.values() if seen["facts"]) for pool, hosts in up.items()}
        words = ", ".join(f"{pool} ({count} machine{'' if count == 1 else 's'})" for pool, count in counts.items())
        return Standing(bool(sum(counts.values())), f"pools: {words}", {"pools": counts})

    def check(self) -> Standing:
        """Looks at every machine of the pools that are up, and records what it finds."""
        try:
            for pool in self._up():
                bring_up(self._home, [pool])
        except CloudError as error:
            return Standing(False, error.words)
        return self.standing()

    def _up(self) -> dict[str, dict[str, dict[str, Any]]]:
        """By pool and host, what was recorded of the pools that are declared and up."""
        found = {pool: load_seen(self._home, pool) for pool in load_pools(self._home)}
        return {pool: seen for pool, seen in found.items() if seen is not None}

    def machines(self) -> Sequence[Offer]:
        """Those that answer now, each whole. One that is held is offered only where no free one could serve instead:
        then the launch fails with who holds it, rather than with a machine that seems not to exist.
        """
        with self._guard:
            at, offers = self._offers
            if time.monotonic() - at >= FRESH_S:
                offers = self._look()
                self._offers = (time.monotonic(), offers)
            return offers

    def _look(self) -> list[Offer]:
        try:
            up = list(self._up())
            hosts = Hosts(self._home, observe.server_id(self._home))
            seen = hosts.look(hosts.places(up)) if up else []
            hosts.close()
        except CloudError as error:
            raise ValueError(error.words) from error
        answering = [one for one in seen if one.facts is not None]
        free = [one for one in answering if one.lease is None]
        held = [one for one in answering if one.lease is not None]
        offered = free + [one for one in held if not any(_serves_instead(other, one) for other in free)]
        return list(dict.fromkeys(_offer(one) for one in offered))

    def locate(self, channel: dict[str, Any]) -> SshTarget:
        """Where the machine of a channel is. Raises `SshFailed` (fatal) when the pools know it no more."""
        try:
            pool = load_pools(self._home).get(channel["pool"])
        except CloudError as error:
            raise SshFailed(error.words, fatal=True) from error
        host = pool.host(channel["host"]) if pool else None
        if host is None:
            raise SshFailed(f"host {channel['host']} is not in pool {channel['pool']} any more", fatal=True)
        return target_of(self._home, host)

    def observe(self, stack: str | None = None, regions: Sequence[str] = ()) -> list[dict[str, Any]]:
        return observe.observe(self._home, stack, regions)


def _serves_instead(free: Seen, held: Seen) -> bool:
    has, wants = free.facts or {}, held.facts or {}
    same_kind = (accelerator_of(has) or ("", 0))[0] == (accelerator_of(wants) or ("", 0))[0]
    larger = all(has[name] >= wants[name] for name in ("cpus", "memory_gb")) and len(has["gpus"]) >= len(wants["gpus"])
    return free.place.pool == held.place.pool and same_kind and larger


def _offer(one: Seen) -> Offer:
    facts = one.facts or {}
    kind = accelerator_of(facts)
    gpus = f"-{kind[0]}x{kind[1]}" if kind else ""
    return Offer(
        cloud="ssh",
        instance_type=f"{facts['cpus']:g}CPU-{facts['memory_gb']:g}GB{gpus}",
        vcpus=float(facts["cpus"]),
        memory_gib=float(facts["memory_gb"]),
        accelerator=kind[0] if kind else None,
        accelerator_count=float(kind[1]) if kind else 0.0,
        accelerator_memory_gib=facts["gpus"][0]["memory_gb"] or None if kind else None,
        region=one.place.pool,
        zones=(),
        price=0.0,
        spot_price=0.0,
    )


def open_cloud(home: Home) -> SshCloud:
    return SshCloud(home)
