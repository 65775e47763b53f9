"""What a failed attempt rules out for the rest of its round, and how a round that found no place is told. Pure.

One round tries each place once; `retry_until_up` begins another. A shortage rules out one zone (where a zone was tried)
or one region for that kind of machine; a quota rules out the region for it; credentials and rights, the whole cloud.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from skyinfra.catalog.local import Candidate
from skyinfra.model.clouds import CLOUD_REGISTRY
from skyinfra.model.resources import Resources
from skyinfra.stacks.operation import FailureKind

__all__ = ["Failure", "block_of", "failures_of", "shortage_block", "shortage_place", "shortage_what", "told"]

_HELP = {
    "capacity": "another zone, region or machine type, or --retry-until-up",
    "quota": "ask the provider for more quota there, or name another region",
    "spot_price": "use_spot: false, or --retry-until-up",
    "credentials": "`skyinfra check` says what is wrong with them",
    "permission": "`skyinfra check` names the rights that are missing",
}
_COLUMNS = ("WHERE", "WHAT", "WHEN", "WHY", "WHAT HELPS")


@dataclass(frozen=True)
class Failure:
    """One attempt that failed and was proven gone. `at`: seconds since the epoch; `words`: the provider's own."""

    candidate: Candidate
    kind: FailureKind
    words: str
    at: float

    @property
    def what(self) -> str:
        one = self.candidate
        gpus = f" ({one.gpus[0]}:{one.gpus[1]})" if one.gpus else ""
        return f"{one.instance_type}{gpus}{' spot' if one.spot else ''}"


def failures_of(prior: Mapping[str, Any], round_number: int | None = None) -> list[Failure]:
    """The failed attempts among a launch's results, in order: all, or those of one round."""
    found, number = [], 0
    while (failed := (prior.get(f"provision#{number}") or {}).get("failed")) is not None:
        place = prior.get(f"place#{number}") or {}
        if "candidate" in place and round_number in (None, place.get("round", 0)):
            candidate = Candidate.from_json(place["candidate"])
            found.append(Failure(candidate, failed["kind"], failed["message"], failed.get("at", 0.0)))
        number += 1
    return found


def block_of(failure: Failure) -> Resources:
    """What need not be tried again in this round."""
    one = failure.candidate
    if failure.kind in ("credentials", "permission"):
        return Resources(cloud=CLOUD_REGISTRY.from_str(one.cloud))
    zone = one.zone if failure.kind != "quota" else None
    return shortage_block(one.cloud, shortage_place(one.region, zone), shortage_what(one.gpus, one.instance_type))


def shortage_what(gpus: Sequence[Any] | None, instance_type: str) -> str:
    """What a shortage is a shortage of."""
    return f"{gpus[0]}:{gpus[1]}" if gpus else instance_type


def shortage_place(region: str | None, zone: str | None) -> str:
    """The region of a shortage, as it is remembered: with its zone behind it when it was the zone's."""
    return f"{region or ''} {zone}" if zone else region or ""


def shortage_block(cloud: str, place: str, what: str) -> Resources:
    """The candidates that a remembered shortage speaks of."""
    region, _, zone = place.partition(" ")
    name, is_gpu, count = what.rpartition(":")
    wanted: dict[str, Any] = {"accelerators": {name: float(count)}} if is_gpu else {"instance_type": what}
    return Resources(cloud=CLOUD_REGISTRY.from_str(cloud), region=region or None, zone=zone or None, **wanted)


def told(cluster_name: str, failures: Iterable[Failure]) -> list[str]:
    """For people: one line per attempt under a heading."""
    rows = [
        (
            one.candidate.where,
            one.what,
            time.strftime("%H:%M:%S", time.localtime(one.at)),
            one.words,
            _HELP.get(one.kind, "-"),
        )
        for one in failures
    ]
    widths = [max(len(row[n]) for row in (_COLUMNS, *rows)) for n in range(len(_COLUMNS))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (_COLUMNS, *rows)
    ]
    return [f"No place had room for cluster '{cluster_name}':", *lines]
