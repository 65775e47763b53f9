"""Where an agent of the ssh cloud lives: on the machine that is leased to its machine id."""

from __future__ import annotations

from typing import Any

from skyinfra.model.home import Home
from skyinfra.stacks.clouds.ssh import ids, intents
from skyinfra.stacks.clouds.ssh.hosts import Cancelled, Hosts, Tell
from skyinfra.stacks.clouds.ssh.machine import Machines
from skyinfra.stacks.remote.agents import Machine

__all__ = ["Locator", "channel_of"]

#: A machine of a pool runs; what it may need is a moment to come back from a boot.
CONNECT_S = 45.0


def channel_of(identifier: str, place: intents.Place) -> dict[str, str]:
    """The way to an agent: names of the user's file; the address is looked up there each time."""
    return {
        "kind": "ssh",
        "cloud": "ssh",
        "machine": identifier,
        "pool": place.pool,
        "host": place.host,
        "socket": ids.socket_of(identifier),
    }


class Locator:
    """Implements `remote.agents.Locate`."""

    def __init__(self, home: Home, hosts: Hosts, machines: Machines, tell: Tell) -> None:
        self._home = home
        self._hosts = hosts
        self._machines = machines
        self._tell = tell

    def __call__(self, machine_id: str) -> Machine | None:
        place = self._machines.find(machine_id)
        if place is None:
            return None

        def ask(request: dict[str, Any], cancelled: Cancelled) -> dict[str, Any]:
            return self._hosts.ask(place, request, connect_s=CONNECT_S, cancelled=cancelled, tell=self._tell)

        return Machine(
            name=place.host,
            ask=ask,
            root=ids.root_of(machine_id),
            socket=ids.socket_of(machine_id),
            channel=channel_of(machine_id, place),
            leased=True,
        )
