"""Where each machine id is, or is about to be: one small file, written before the lease is asked for.

What this server leased is found again by it even while a machine cannot be reached. It is a hint to the truth, which is
the lease on the machine; who has no file (another server of the same database) looks at all machines.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from skyinfra.model.home import Home
from skyinfra.stacks.files import make_private_dir, read_json, write_json

__all__ = ["Place", "all_places", "forget", "place_of", "remember"]


@dataclass(frozen=True)
class Place:
    """A host of a pool."""

    pool: str
    host: str


def _folder(home: Home) -> Path:
    return home.root / "ssh" / "leases"


def _path(home: Home, machine_id: str) -> Path:
    """Raises `ValueError` for what is no plain name."""
    if not machine_id or "/" in machine_id or machine_id.startswith("."):
        raise ValueError(f"not a machine id: {machine_id!r}")
    return _folder(home) / f"{machine_id}.json"


def remember(home: Home, machine_id: str, place: Place) -> None:
    make_private_dir(_folder(home))
    write_json(_path(home, machine_id), asdict(place))


def place_of(home: Home, machine_id: str) -> Place | None:
    try:
        raw = read_json(_path(home, machine_id))
    except json.JSONDecodeError:
        return None
    return Place(**raw) if raw else None


def forget(home: Home, machine_id: str) -> None:
    _path(home, machine_id).unlink(missing_ok=True)


def all_places(home: Home) -> Iterator[tuple[str, Place]]:
    """Every machine id that has a place."""
    for path in sorted(_folder(home).glob("*.json")):
        place = place_of(home, path.stem)
        if place is not None:
            yield path.stem, place
