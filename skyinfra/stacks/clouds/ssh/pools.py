"""Pools brought up and down: looked at, written down, forgotten. What `skyinfra ssh up|down|status` rests on."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import yaml

from skyinfra.model.exceptions import InvalidSkyPilotConfigError
from skyinfra.model.home import Home
from skyinfra.model.ssh_pools import pool_documents
from skyinfra.stacks.clouds.failures import CloudError
from skyinfra.stacks.clouds.ssh.choice import holder
from skyinfra.stacks.clouds.ssh.facts import forget_seen, load_pools, load_seen, pools_path, save_seen
from skyinfra.stacks.clouds.ssh.hosts import Hosts, Seen
from skyinfra.stacks.clouds.ssh.intents import all_places
from skyinfra.stacks.clouds.ssh.observe import server_id
from skyinfra.stacks.files import write_atomic

__all__ = ["add_pools", "bring_down", "bring_up", "describe"]


def add_pools(home: Home, text: str, name: str) -> list[str]:
    """Put the pools of a text into this server's file, in the place of those of the same name; their names.

    Raises `CloudError` (user) naming line and key. The file is written anew only when something changes.
    """
    path = pools_path(home)
    load_pools(home)  # a file that is wrong already is reported as itself
    try:
        given = pool_documents(text, name)
        before = pool_documents(path.read_text(), str(path)) if path.exists() else {}
    except InvalidSkyPilotConfigError as exc:
        raise CloudError("user", str(exc).replace("\n", "; "), "ssh") from exc
    if {**before, **given} != before:
        write_atomic(path, yaml.safe_dump({**before, **given}, sort_keys=False).encode())
    return list(given)


def bring_up(home: Home, names: Iterable[str] | None) -> dict[str, dict[str, dict[str, Any]]]:
    """Look at every host of these pools (None = all) and record it: by pool and host ``{facts, problem, at}``.

    Raises `CloudError` (user) for a pool that is not declared.
    """
    wanted = _declared(home, names)
    hosts = Hosts(home, server_id(home))
    try:
        seen = hosts.look(hosts.places(wanted)) if wanted else []
    finally:
        hosts.close()
    found: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in wanted}
    for one in seen:
        found[one.place.pool][one.place.host] = _record(one)
    for pool, records in found.items():
        save_seen(home, pool, records)
    return found


def _record(one: Seen) -> dict[str, Any]:
    return {"facts": one.facts, "problem": one.problem, "at": time.time()}


def _declared(home: Home, names: Iterable[str] | None) -> list[str]:
    declared = load_pools(home)
    wanted = list(declared) if names is None else list(names)
    for name in wanted:
        if name not in declared:
            known = ", ".join(sorted(declared)) or f"none: {pools_path(home)} does not declare any"
            raise CloudError("user", f"there is no ssh node pool {name!r}; there are: {known}", name)
    return wanted


def bring_down(home: Home, names: Iterable[str] | None) -> list[str]:
    """Offer these pools (None = all that are up) no more; which ones.

    Raises `CloudError` (user) naming the clusters that still have machines there: they go first.
    """
    wanted = [name for name in _declared(home, names) if load_seen(home, name) is not None]
    for identifier, place in all_places(home):
        if place.pool in wanted:
            words = f"machine {place.host} of pool {place.pool} serves {identifier}; take that cluster down first"
            raise CloudError("user", words, place.pool)
    for name in wanted:
        forget_seen(home, name)
    return wanted


def describe(home: Home, names: Iterable[str] | None = None) -> dict[str, list[dict[str, Any]]]:
    """By pool, its hosts as they are now: ``{host, up, state, facts, holder, problem}``.

    `state` is ``free``, ``held``, ``unreachable`` or, for a pool that was not brought up, ``unknown``.
    """
    wanted = _declared(home, names)
    up = [name for name in wanted if load_seen(home, name) is not None]
    hosts = Hosts(home, server_id(home))
    try:
        seen = {one.place: one for one in (hosts.look(hosts.places(up)) if up else [])}
        places = hosts.places(wanted) if wanted else []
    finally:
        hosts.close()
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in wanted}
    for place in places:
        found[place.pool].append({"host": place.host, "up": place.pool in up, **_state(seen.get(place))})
    return found


def _state(one: Seen | None) -> dict[str, Any]:
    if one is None:
        return {"state": "unknown", "facts": None, "holder": None, "problem": ""}
    state = "unreachable" if one.facts is None else "free" if one.lease is None else "held"
    return {
        "state": state,
        "facts": one.facts,
        "holder": holder(one.lease) if one.lease else None,
        "problem": one.problem,
    }
