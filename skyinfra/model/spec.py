"""`ClusterSpec`: what a cluster should be, as data.

It is the value of the stack's config key ``skyinfra:cluster`` and the program's only input, so equal specs plan equal
resources. Frozen and versioned: a field is added with a default, never renamed; `from_json` refuses a newer version.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["SPEC_VERSION", "ClusterSpec", "Slot", "stack_name"]

SPEC_VERSION = 1

Power = Literal["running", "stopped"]


@dataclass(frozen=True)
class Slot:
    """A node's place in its cluster: slot 0 is the head."""

    slot: int
    incarnation: int = 0
    """Raised to replace the machine."""
    agent_generation: int = 0
    """Raised to bring back an agent that died."""
    instance_type: str = "local"
    cpus: float = 1.0
    memory_gb: float = 0.0
    gpus: tuple[str, int] | None = None
    """Accelerator name and count, or None."""
    disk_gb: int = 256
    spot: bool = False
    image: str | None = None
    disk_tier: str | None = None
    """low, medium, high, ultra or best; None = the cloud's default."""


@dataclass(frozen=True)
class ClusterSpec:
    """The declaration of one cluster. Times in it are durations; it holds no address and no secret."""

    server: str
    workspace: str
    user: str
    name: str
    stack: str
    cloud: str
    slots: tuple[Slot, ...]
    region: str | None = None
    zones: tuple[str, ...] = ()
    power: Power = "running"
    boot: int = 0
    """Raised by every start, so that the agents of a restarted machine are started again."""
    agent_version: str = ""
    ports: tuple[str, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)
    autostop: dict[str, Any] | None = None
    """`{idle_minutes, down, wait_for, hook, hook_timeout, setting}`; idle_minutes -1 = called off."""
    hooks: tuple[dict[str, Any], ...] = ()
    """`{run, events, timeout}`: what runs on the nodes before they are stopped or removed."""
    settings: dict[str, Any] = field(default_factory=dict)
    """What this cloud alone knows, resolved when the cluster was placed: network and group by id, profile, login."""
    public_key: str = ""
    """Who may log in over SSH, as an OpenSSH public key; "" where nobody logs in."""
    version: int = SPEC_VERSION

    def to_json(self) -> dict[str, Any]:
        """A plain JSON value; `from_json` gives the same spec back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> ClusterSpec:
        """Raises `ValueError` for a version newer than this code."""
        if value.get("version", 1) > SPEC_VERSION:
            raise ValueError(
                f"cluster spec version {value['version']} is newer than this skyinfra understands ({SPEC_VERSION})"
            )
        known = {f.name for f in dataclasses.fields(cls)}
        slot_known = {f.name for f in dataclasses.fields(Slot)}
        slots = []
        for raw in value["slots"]:
            kept = {k: v for k, v in raw.items() if k in slot_known}
            if kept.get("gpus") is not None:
                kept["gpus"] = (kept["gpus"][0], kept["gpus"][1])
            slots.append(Slot(**kept))
        kept = {k: v for k, v in value.items() if k in known}
        return cls(
            **{
                **kept,
                "slots": tuple(slots),
                "zones": tuple(kept.get("zones") or ()),
                "ports": tuple(kept.get("ports") or ()),
                "hooks": tuple(kept.get("hooks") or ()),
            }
        )

    def with_slot(self, slot: int, **changes: Any) -> ClusterSpec:
        """The same spec with one slot changed."""
        return dataclasses.replace(
            self, slots=tuple(dataclasses.replace(s, **changes) if s.slot == slot else s for s in self.slots)
        )


def stack_name(server: str, workspace: str, name: str) -> str:
    """Name on the cloud + `-` + 6 hex of sha256(server, workspace, exact name): `a.b`, `a_b` and `A-B` differ.

    Lower case `[a-z0-9-]`, at most 63 characters, so that it is legal as a tag value on every cloud.
    """
    digest = hashlib.sha256("\0".join((server, workspace, name)).encode()).hexdigest()[:6]
    readable = re.sub(r"[^a-z0-9-]", "-", name.lower()).strip("-")[:56].rstrip("-")
    return f"{readable}-{digest}"
