"""``ssh up``, ``ssh down``, ``ssh status``: this server's pools; and how people log in to the nodes of clusters.

Answered at once: looking at machines takes seconds and is bounded, and nothing that was begun needs to be resumed.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from skyinfra.channels.ssh_target import ResolvedTarget, SshFailed, SshTarget, resolve_target
from skyinfra.model.home import Home
from skyinfra.model.states import ClusterStatus
from skyinfra.server.fleet.clouds import Clouds
from skyinfra.server.fleet.clusters import Clusters
from skyinfra.server.identity import Principal
from skyinfra.stacks.clouds.failures import CloudError
from skyinfra.stacks.clouds.ssh import pools

__all__ = ["SshPools"]

Read = Callable[[Principal, dict[str, Any]], Awaitable[bytes]]


class SshPools:
    """The verbs, by name, are `reads`."""

    def __init__(self, home: Home, clusters: Clusters, clouds: Clouds) -> None:
        self._home = home
        self._clusters = clusters
        self._clouds = clouds

    def reads(self) -> Mapping[str, Read]:
        return {"ssh_up": self._up, "ssh_down": self._down, "ssh_status": self._status, "ssh_config": self._config}

    async def _up(self, principal: Principal, body: dict[str, Any]) -> bytes:
        """``{pool: {host: {facts, problem, at}}}``. Raises `ValueError` for a bad file or an unknown pool."""

        def act() -> Any:
            text, names = body.get("pools"), _names(body)
            if text is not None:
                given = pools.add_pools(self._home, text, body.get("file") or "pools")
                names = names if names is not None else given
            return pools.bring_up(self._home, names)

        return await _answer(act)

    async def _down(self, principal: Principal, body: dict[str, Any]) -> bytes:
        """The pools that were up. Raises `ValueError` naming the clusters that are still there."""
        return await _answer(lambda: pools.bring_down(self._home, _names(body)))

    async def _status(self, principal: Principal, body: dict[str, Any]) -> bytes:
        return await _answer(lambda: pools.describe(self._home, _names(body)))

    async def _config(self, principal: Principal, body: dict[str, Any]) -> bytes:
        """``{entries: {cluster: [{host, options}]}, known_hosts}`` of the clusters whose nodes are reached over SSH."""
        rows = [row for row in await self._clusters.all() if row.workspace not in principal.barred]
        found: dict[str, list[dict[str, Any]]] = {}
        pins: set[str] = set()
        for row in rows:
            if row.status == ClusterStatus.UP.name:
                ways = await asyncio.to_thread(self._ways, row)
                if ways:
                    found[row.name] = [_entry(row.name, slot, way) for slot, way in ways]
                    pins |= {hop.pin for _, way in ways for hop in (*way.hops, way)}
        lines = await asyncio.to_thread(_pinned_lines, self._home, pins)
        return json.dumps({"entries": found, "known_hosts": lines}).encode()

    def _ways(self, row: Any) -> list[tuple[int, ResolvedTarget]]:
        """A node that cannot be found now has no entry: what it was may be another's by now."""
        ways = []
        for node in row.nodes:
            channel = node.get("channel") or {}
            if channel.get("kind") != "ssh":
                continue
            try:
                target: SshTarget = self._clouds[channel["cloud"]].locate(channel)  # type: ignore[attr-defined]
                ways.append((node["slot"], resolve_target(target)))
            except (SshFailed, CloudError):
                continue
        return ways


def _names(body: dict[str, Any]) -> list[str] | None:
    """The pools meant: ``rack1`` and ``ssh/rack1`` are one."""
    infra = body.get("infra")
    return [infra.removeprefix("ssh/")] if infra else None


async def _answer(act: Callable[[], Any]) -> bytes:
    try:
        return json.dumps(await asyncio.to_thread(act)).encode()
    except CloudError as error:
        raise ValueError(error.words) from error


def _entry(cluster: str, slot: int, way: ResolvedTarget) -> dict[str, Any]:
    """One ``Host`` of an SSH configuration, as pairs. No password: `ssh` asks for it."""
    options = [["HostName", way.host], ["User", way.user], ["Port", str(way.port)], ["HostKeyAlias", way.pin]]
    options += [["IdentityFile", path] for path in way.identity_files]
    if way.named_identity and way.identity_files:
        options.append(["IdentitiesOnly", "yes"])
    if way.hops:
        options.append(["ProxyJump", ",".join(f"{hop.user}@{hop.host}:{hop.port}" for hop in way.hops)])
    elif way.proxy_command:
        options.append(["ProxyCommand", way.proxy_command])
    return {"host": cluster if slot == 0 else f"{cluster}-worker{slot}", "options": options}


def _pinned_lines(home: Home, pins: set[str]) -> list[str]:
    try:
        lines = home.known_hosts.read_text().splitlines()
    except FileNotFoundError:
        return []
    return [line for line in lines if line.split(" ", 1)[0] in pins]
