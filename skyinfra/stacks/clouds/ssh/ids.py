"""Machine ids of the ssh cloud, and where a machine id keeps its things on the machine."""

from __future__ import annotations

import hashlib
import re
from typing import NamedTuple

__all__ = ["LEASES", "LEASE_TTL_S", "MachineId", "machine_id", "parse_id", "root_of", "socket_of"]

#: On every machine the same, whoever logs in: one machine, one lease.
LEASES = "/var/tmp/skyinfra-lease"
#: A server that is gone for longer than this, with nothing of it running there, has lost its machines.
LEASE_TTL_S = 7 * 86400.0
NODE_FOLDER = "~/.skyinfra-node"

_ID = re.compile(r"(?P<cluster>.+)-(?P<slot>\d+)-(?P<incarnation>\d+)")


class MachineId(NamedTuple):
    cluster: str
    slot: int
    incarnation: int


def machine_id(cluster: str, slot: int, incarnation: int) -> str:
    """Deterministic, so that a Create that is repeated finds what the first one leased."""
    return f"{cluster}-{slot}-{incarnation}"


def parse_id(identifier: str) -> MachineId | None:
    """None for what is no machine id."""
    match = _ID.fullmatch(identifier)
    return None if match is None else MachineId(match["cluster"], int(match["slot"]), int(match["incarnation"]))


def root_of(identifier: str) -> str:
    """Its folder there, below the login's home; short, because a socket's path ends at 108 bytes."""
    return f"{NODE_FOLDER}/{identifier[:24]}-{hashlib.sha256(identifier.encode()).hexdigest()[:8]}"


def socket_of(identifier: str) -> str:
    """The agent's socket there."""
    return f"{root_of(identifier)}/agent.sock"
