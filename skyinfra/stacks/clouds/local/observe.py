"""What the local cloud really has: reads ``nodes/*`` and processes, never the stack. No Pulumi: the server asks too."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from skyinfra.model.home import Home
from skyinfra.stacks import processes
from skyinfra.stacks.clouds.local import machine as machines
from skyinfra.stacks.files import read_json

__all__ = ["agent_alive", "observe"]

_ID = re.compile(r"(?P<cluster>.+)-(?P<slot>\d+)-(?P<incarnation>\d+)")


def observe(home: Home, cluster: str | None = None, regions: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Machines of the cluster (its stack name), or all: ``{cluster, slot, incarnation, id, state, …}``, by slot.

    `state` is ``running``, ``stopped``, ``creating`` or ``deleting``; `stopped_by` is ``autostop`` when the node ended
    itself; `agent` says whether its agent's process lives. A folder without a record (a Create killed before it) is
    attributed by its name.
    """
    if not home.nodes.is_dir():
        return []
    found = []
    for place in home.nodes.iterdir():
        match = _ID.fullmatch(place.name)
        if match is None or (cluster is not None and match["cluster"] != cluster):
            continue
        machine = machines.load(home, place.name)
        state = _state(home, machine)
        found.append(
            {
                "cluster": match["cluster"],
                "slot": int(match["slot"]),
                "incarnation": int(match["incarnation"]),
                "id": place.name,
                "state": state,
                "internal_ip": machine.ip if machine else None,
                "external_ip": "127.0.0.1" if machine else None,
                "spot": machine.spot if machine else False,
                "workspace": machine.workspace if machine else "",
                "server": machine.server if machine else "",
                "stopped_by": "autostop" if _stopped_itself(home, machine) else None,
                "agent": "alive" if agent_alive(home, place.name) else "dead",
            }
        )
    return sorted(found, key=lambda seen: (seen["cluster"], seen["slot"], seen["incarnation"]))


def _stopped_itself(home: Home, machine: machines.Machine | None) -> bool:
    return machine is not None and machine.state == "ready" and machines.stopped_itself(home, machine.id)


def _state(home: Home, machine: machines.Machine | None) -> str:
    if machine is None:
        return "creating"
    if machine.state != "ready":
        return machine.state
    return "stopped" if machine.power == "running" and machines.stopped_itself(home, machine.id) else machine.power


def agent_alive(home: Home, identifier: str) -> bool:
    """Whether the process that ``agent.json`` names runs."""
    try:
        record = read_json(machines.agent_dir(home, identifier) / "agent.json")
    except ValueError:
        return False
    return record is not None and processes.alive(processes.Identity.from_json(record))
