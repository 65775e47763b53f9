"""A machine of the ssh cloud: leased from a pool, given back clean. The acts behind ``skyinfra:ssh:Machine``.

Idempotent by (cluster, slot, incarnation): the lease on the machine carries that id, and where it is asked for is
written down first (`intents`), so wherever an act is killed the next one finds it. Refuses to call anything gone that
it could not look at.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from skyinfra.model.home import Home
from skyinfra.runtime.boundary import boundary
from skyinfra.stacks.clouds.failures import CloudError
from skyinfra.stacks.clouds.ssh import choice, ids, intents
from skyinfra.stacks.clouds.ssh.choice import Demand
from skyinfra.stacks.clouds.ssh.hosts import Hosts, Seen
from skyinfra.stacks.clouds.ssh.intents import Place

__all__ = ["Declared", "Leased", "Machines", "delete"]

NOTHING_ASKED = Demand()
Tell = Callable[[str], None]
Cancelled = Callable[[], bool]


@dataclass(frozen=True)
class Declared:
    """What the program asks for: the inputs of ``skyinfra:ssh:Machine``."""

    cluster: str
    slot: int
    incarnation: int
    pool: str
    server: str = ""
    workspace: str = ""
    name: str = ""
    """The cluster's own name, for people."""
    demand: Demand = NOTHING_ASKED

    @property
    def id(self) -> str:
        return ids.machine_id(self.cluster, self.slot, self.incarnation)

    def lease(self) -> dict[str, Any]:
        """What is written on the machine."""
        return {
            "machine_id": self.id,
            "server": self.server,
            "workspace": self.workspace,
            "cluster": self.cluster,
            "name": self.name,
            "slot": self.slot,
            "incarnation": self.incarnation,
            "ttl_s": ids.LEASE_TTL_S,
            "root": ids.root_of(self.id),
        }


@dataclass(frozen=True)
class Leased:
    """A machine that is ours: where it is, and what it is."""

    id: str
    place: Place
    facts: dict[str, Any]

    def outputs(self) -> dict[str, Any]:
        """No address to log in at, no secret: host and pool are names in the user's file."""
        has = choice.accelerator_of(self.facts)
        shown = {key: self.facts[key] for key in ("cpus", "memory_gb", "os", "arch", "python", "hostname")}
        return {
            "id": self.id,
            "internal_ip": self.facts["ip"],
            "external_ip": self.facts["ip"],
            "pool": self.place.pool,
            "host": self.place.host,
            "facts": {**shown, "gpus": list(has) if has else None},
        }


class Machines:
    """The acts, on the connections of one `Hosts`."""

    def __init__(self, home: Home, hosts: Hosts) -> None:
        self._home = home
        self._hosts = hosts
        self._guard = threading.Lock()  # guards the two below: slots of one cluster choose at the same time
        self._looks: dict[str, list[Seen]] = {}
        self._claimed: set[Place] = set()

    def lease(self, declared: Declared, tell: Tell, cancelled: Cancelled) -> Leased:
        """A machine for this id: the one that it has, else one that is free.

        Raises `CloudError`: capacity that names who holds what; transient when the one that may have the lease already
        cannot be reached.
        """
        self._known_pool(declared.pool)
        boundary("provider.ssh_machine.create.before")
        place = self.find(declared.id, (declared.pool,))
        if place is not None:
            leased = self._take(declared, place, tell, cancelled)
            if leased is not None:
                return leased
        tried: list[str] = []
        while (chosen := self._choose(declared)) is not None:
            leased = self._take(declared, chosen, tell, cancelled)
            if leased is not None:
                return leased
            tried.append(chosen.host)
            if cancelled():
                raise CloudError("transient", f"cancelled while a machine of pool {declared.pool} was leased")
        words = choice.shortage(declared.pool, self._seen(declared.pool), declared.demand)
        raise CloudError("capacity", words, declared.pool)

    def _known_pool(self, name: str) -> None:
        pools = self._hosts.pools()
        if name not in pools:
            known = ", ".join(sorted(pools)) or "none"
            raise CloudError("user", f"there is no ssh node pool {name!r}; there are: {known}", name)

    def _seen(self, pool: str) -> list[Seen]:
        with self._guard:
            if pool not in self._looks:
                self._looks[pool] = self._hosts.look(self._hosts.places((pool,)))
            return self._looks[pool]

    def _choose(self, declared: Declared) -> Place | None:
        seen = self._seen(declared.pool)
        with self._guard:
            for one in choice.fitting(seen, declared.demand):
                if one.place not in self._claimed:
                    self._claimed.add(one.place)
                    return one.place
        return None

    def _take(self, declared: Declared, place: Place, tell: Tell, cancelled: Cancelled) -> Leased | None:
        """None: somebody else has it, and what this look knew of it is put right."""
        intents.remember(self._home, declared.id, place)
        request = {"op": "take", "lease": declared.lease()}
        answer = self._hosts.ask(place, request, cancelled=cancelled, tell=tell)
        boundary("provider.ssh_machine.create.made")
        if "held" in answer:
            intents.forget(self._home, declared.id)
            tell(f"{place.host} is held by {choice.holder(answer['held'])}")
            with self._guard:
                known = self._looks.get(declared.pool, [])
                self._looks[declared.pool] = [_held(one, place, answer["held"]) for one in known]
            return None
        if lacks := choice.misfit(answer["facts"], declared.demand):
            raise CloudError("capacity", f"{place.host} {lacks}", declared.pool)
        boundary("provider.ssh_machine.create.recorded")
        return Leased(declared.id, place, answer["facts"])

    def find(self, identifier: str, pools: tuple[str, ...] = ()) -> Place | None:
        """Where this machine id is, or may be; None: on no machine that could be looked at."""
        known = intents.place_of(self._home, identifier)
        if known is not None:
            return known
        for one in self._hosts.look(self._hosts.places(pools)):
            if one.lease is not None and one.lease["machine_id"] == identifier:
                intents.remember(self._home, identifier, one.place)
                return one.place
        return None

    def still_there(self, identifier: str, place: Place, within_s: float) -> bool | None:
        """Whether the machine is leased to this id; None: it cannot be reached, so nobody knows."""
        try:
            lease = self._hosts.ask(place, {"op": "look"}, connect_s=within_s)["lease"]
        except CloudError:
            return None
        return lease is not None and lease["machine_id"] == identifier

    def give_back(self, identifier: str, known: Place | None = None) -> None:
        """Nothing of it is on the machine any more when this returns; gone already is done.

        Raises `CloudError`: transient for a machine that exists and cannot be reached, leftovers for what would not go.
        """
        boundary("provider.ssh_machine.delete.before")
        place = intents.place_of(self._home, identifier) or known or self.find(identifier)
        if place is not None:
            request = {"op": "give_back", "machine_id": identifier, "root": ids.root_of(identifier)}
            left = self._hosts.ask(place, request).get("left")
            if left:
                raise CloudError("transient", f"{place.host} of pool {place.pool} keeps {', '.join(left)}", place.pool)
        boundary("provider.ssh_machine.delete.made")
        intents.forget(self._home, identifier)
        boundary("provider.ssh_machine.delete.recorded")


def _held(one: Seen, place: Place, lease: dict[str, Any]) -> Seen:
    return Seen(one.place, one.facts, lease, one.agent) if one.place == place else one


def delete(home: Home, identifier: str) -> None:
    """Give back a machine that no stack names. Raises as `Machines.give_back`."""
    hosts = Hosts(home)
    try:
        Machines(home, hosts).give_back(identifier)
    finally:
        hosts.close()
