"""What a candidate is worth: seconds and dollars of one task on it, and of moving data from one task to the next.

A pair (first what is minimised, then the other) so that ties are broken the way anybody would. Knows nothing about
how the best combination is found; that is `chain`'s, `general`'s and `group`'s business.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from skyinfra.catalog.candidates import Candidate
from skyinfra.catalog.egress import egress_cost, transfer_s
from skyinfra.model.states import OptimizeTarget

if TYPE_CHECKING:
    from skyinfra.model.task import Task

__all__ = ["DEFAULT_RUNTIME_S", "Ranked", "Reservations", "Value", "edge_value", "rank_candidates"]

DEFAULT_RUNTIME_S = 3600.0

#: (cloud, instance type, region or zone) -> nodes already paid for and free to use.
Reservations = Mapping[tuple[str, str, str], int]

#: (what is minimised, the other): dollars and seconds, or seconds and dollars.
Value = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Ranked:
    """A candidate with what the task would cost and take there. `cost` None = a price is not known."""

    candidate: Candidate
    cost: float | None  #: USD, all nodes, for the whole estimated time
    hourly: float | None  #: USD per hour, all nodes, reserved ones free
    runtime_s: float
    target: OptimizeTarget

    @property
    def value(self) -> Value:
        """What to minimise; an unknown price is worse than any known one."""
        cost = math.inf if self.cost is None else self.cost
        return (cost, self.runtime_s) if self.target is OptimizeTarget.COST else (self.runtime_s, cost)


def rank_candidates(
    task: Task, candidates: Sequence[Candidate], target: OptimizeTarget, reservations: Reservations
) -> list[Ranked]:
    """Candidates with their figures, best first; an `ordered` list's earlier alternatives stay in front."""
    estimated = _has_estimator(task, candidates)
    ranked = []
    for candidate in candidates:
        runtime_s = float(task.estimate_runtime(candidate.resources())) if estimated else DEFAULT_RUNTIME_S
        paid = max(0, task.num_nodes - _reserved(candidate, reservations))
        hourly = 0.0 if paid == 0 else None if candidate.hourly is None else candidate.hourly * paid
        cost = None if hourly is None else hourly * runtime_s / 3600
        ranked.append(Ranked(candidate, cost, hourly, runtime_s, target))
    ranked.sort(key=lambda one: (one.candidate.preference, one.value))  # stable: ties stay in the candidates' order
    return ranked


def edge_value(source: str | None, to: str | None, gigabytes: float, target: OptimizeTarget) -> Value:
    """What moving data from one cloud to another adds."""
    cost, seconds = egress_cost(source, to, gigabytes), transfer_s(source, to, gigabytes)
    return (cost, seconds) if target is OptimizeTarget.COST else (seconds, cost)


def _has_estimator(task: Task, candidates: Sequence[Candidate]) -> bool:
    """Whether the user said how long the task takes; SkyPilot's way of saying no is NotImplementedError."""
    if not candidates:
        return False
    try:
        task.estimate_runtime(candidates[0].resources())
    except NotImplementedError:
        return False
    return True


def _reserved(candidate: Candidate, reservations: Reservations) -> int:
    """Nodes of a reservation that this candidate may use. Spot machines are never reserved ones."""
    if candidate.spot or not reservations:
        return 0
    offer = candidate.offer
    places = [offer.region, *([candidate.zone] if candidate.zone is not None else offer.zones)]
    return sum(reservations.get((offer.cloud, offer.instance_type, place), 0) for place in places)
