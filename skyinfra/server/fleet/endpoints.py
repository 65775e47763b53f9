"""``endpoints``: where the ports that a cluster opened can be reached."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from skyinfra.model.exceptions import ClusterNotUpError, PortDoesNotExistError, with_hint
from skyinfra.model.states import ClusterStatus
from skyinfra.server.fleet.clusters import Clusters, handle_of
from skyinfra.server.identity import Principal

__all__ = ["Endpoints", "ports_of"]

MAX_PORTS = 1000


class Endpoints:
    def __init__(self, clusters: Clusters) -> None:
        self._clusters = clusters

    async def read(self, principal: Principal, body: dict[str, Any]) -> bytes:
        """``{port: address}``. Raises `ClusterNotUpError` (also for an unknown cluster) and `PortDoesNotExistError`."""
        name = body["cluster_name"]
        row = await self._clusters.find(body["workspace"], name)
        if row is None:
            raise with_hint(ClusterNotUpError(f"Cluster '{name}' does not exist."), "`skyinfra status` lists them")
        if row.status != ClusterStatus.UP.name or not row.nodes:
            status = ClusterStatus[row.status]
            raise ClusterNotUpError(f"Cluster '{name}' is not up: {status.name}.", status, handle_of(row))
        opened = ports_of(row.spec["ports"])
        asked = body["port"]
        if asked is not None and int(asked) not in opened:
            have = ", ".join(map(str, row.spec["ports"])) or "none"
            raise with_hint(
                PortDoesNotExistError(f"Port {asked} is not open on cluster '{name}'; open ports: {have}."),
                "`ports` in the task's resources, or `launch --ports`, opens them",
            )
        host = _host(row.nodes[0])
        chosen = opened if asked is None else [int(asked)]
        return json.dumps({str(port): f"{host}:{port}" for port in chosen}).encode()


def ports_of(declared: Iterable[Any]) -> list[int]:
    """``["8080", "9000-9002"]`` one by one, in order."""
    found: list[int] = []
    for one in declared:
        first, _, last = str(one).partition("-")
        found.extend(range(int(first), min(int(last or first), int(first) + MAX_PORTS) + 1))
    return list(dict.fromkeys(found))


def _host(node: dict[str, Any]) -> str:
    """The public address; a machine of this host is reached at the loopback address that is its own."""
    public, private = node.get("external_ip"), node.get("internal_ip")
    if public and private and public.startswith("127."):
        return private
    return public or private or ""
