"""What the ssh cloud really has: the leases on the machines, read over SSH in parallel, never the stack.

A machine that cannot be reached is ``unreachable``, not gone, when we know that it was leased (`intents`). No Pulumi:
the server asks too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from skyinfra.model.home import Home
from skyinfra.stacks.clouds.ssh import ids, intents
from skyinfra.stacks.clouds.ssh.hosts import Hosts, Seen
from skyinfra.stacks.clouds.ssh.intents import Place

__all__ = ["observe", "server_id"]


def observe(home: Home, cluster: str | None = None, regions: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Machines of the cluster (its stack name), or of all clusters of this state folder, by slot.

    `regions` are pools; empty = all. `state` is ``running``, ``deleting`` or ``unreachable``. Looks where machines of
    the cluster are known to be, else everywhere: a lease that another server of the same database took is found, too.
    Raises `CloudError` (user) for a bad file.
    """
    server = server_id(home)
    known = {identifier: place for identifier, place in intents.all_places(home) if _is_of(identifier, cluster)}
    hosts = Hosts(home, server)
    try:
        places = set(known.values()) if cluster is not None and known else {*hosts.places(regions), *known.values()}
        seen = hosts.look(sorted(places, key=lambda place: (place.pool, place.host)))
    finally:
        hosts.close()
    return sorted(
        _machines(seen, known, cluster, server), key=lambda one: (one["cluster"], one["slot"], one["incarnation"])
    )


def _is_of(identifier: str, cluster: str | None) -> bool:
    parsed = ids.parse_id(identifier)
    return parsed is not None and cluster in (None, parsed.cluster)


def _machines(
    seen: Iterable[Seen], known: dict[str, Place], cluster: str | None, server: str
) -> Iterable[dict[str, Any]]:
    for one in seen:
        lease = one.lease
        if one.facts is None:
            for identifier in [identifier for identifier, place in known.items() if place == one.place]:
                yield _machine(identifier, one, "unreachable")
        elif lease is not None and _is_of(lease["machine_id"], cluster):
            ours = cluster is not None or lease["server"] == server or lease["machine_id"] in known
            if ours:
                yield _machine(lease["machine_id"], one, "deleting" if lease["state"] == "releasing" else "running")


def _machine(identifier: str, one: Seen, state: str) -> dict[str, Any]:
    parsed = ids.parse_id(identifier)
    assert parsed is not None, "only machine ids come here"
    lease = one.lease or {}
    return {
        "cluster": parsed.cluster,
        "slot": parsed.slot,
        "incarnation": parsed.incarnation,
        "id": identifier,
        "state": state,
        "internal_ip": one.facts["ip"] if one.facts else None,
        "external_ip": one.facts["ip"] if one.facts else None,
        "spot": False,
        "workspace": lease.get("workspace", ""),
        "server": lease.get("server", ""),
        "stopped_by": None,
        "agent": one.agent if one.facts else "unknown",
        "pool": one.place.pool,
        "host": one.place.host,
        "why": one.problem,
    }


def server_id(home: Home) -> str:
    """What this server's leases carry."""
    try:
        return home.server_id.read_text().strip()
    except FileNotFoundError:
        return ""  # no server of ours: an engine that somebody drives
