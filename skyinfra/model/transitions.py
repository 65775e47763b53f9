"""What a cluster, a job and a request may become: one table per machine that the server drives.

The tables are the only place that says which change is legal; the store guards each write with `check_transition`.
A row that does not exist has no state: `None` stands for it at both ends. A retry is a new row, so no arrow leads
back from a final state.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any, TypeVar

from skyinfra.model.states import ClusterStatus, JobStatus, RequestStatus

__all__ = [
    "CLUSTER_TRANSITIONS",
    "JOB_TRANSITIONS",
    "REQUEST_TRANSITIONS",
    "IllegalTransition",
    "check_transition",
    "start_states",
]

S = TypeVar("S", bound=enum.Enum)


class IllegalTransition(Exception):
    """This state may not follow that one."""

    def __init__(self, before: enum.Enum | None, after: enum.Enum | None) -> None:
        kind = type(before if after is None else after).__name__
        super().__init__(f"{kind}: {_name(before)} may not become {_name(after)}")
        self.before = before
        self.after = after


def _name(state: enum.Enum | None) -> str:
    return "no row" if state is None else state.name


# stateDiagram-v2
#   [*] --> INIT: launch writes the row before anything is made
#   INIT --> UP: every node and agent proven
#   INIT --> STOPPED: stop, or all machines seen off
#   INIT --> [*]: never up and all candidates failed, or down
#   UP --> INIT: a node or agent is missing, or start --force
#   UP --> STOPPED: stop
#   UP --> AUTOSTOPPING: the idle deadline passed
#   UP --> [*]: down
#   AUTOSTOPPING --> STOPPED: stopped
#   AUTOSTOPPING --> INIT: the stop failed half way
#   AUTOSTOPPING --> UP: the stop was called off before anything changed
#   AUTOSTOPPING --> [*]: down
#   STOPPED --> INIT: start, launch
#   STOPPED --> [*]: down
CLUSTER_TRANSITIONS: Mapping[ClusterStatus | None, frozenset[ClusterStatus | None]] = {
    None: frozenset({ClusterStatus.INIT}),
    ClusterStatus.INIT: frozenset({ClusterStatus.UP, ClusterStatus.STOPPED, None}),
    ClusterStatus.UP: frozenset({ClusterStatus.INIT, ClusterStatus.STOPPED, ClusterStatus.AUTOSTOPPING, None}),
    ClusterStatus.AUTOSTOPPING: frozenset({ClusterStatus.STOPPED, ClusterStatus.INIT, ClusterStatus.UP, None}),
    ClusterStatus.STOPPED: frozenset({ClusterStatus.INIT, None}),
    # Never stored: the client shows it for a launch that has no row yet.
    ClusterStatus.PENDING: frozenset(),
}

# stateDiagram-v2
#   [*] --> INIT
#   INIT --> PENDING: queued
#   PENDING --> SETTING_UP: room found, there is a setup
#   PENDING --> RUNNING: room found, no setup
#   SETTING_UP --> RUNNING
#   SETTING_UP --> SUCCEEDED: a task without run
#   SETTING_UP --> FAILED_SETUP
#   RUNNING --> SUCCEEDED
#   RUNNING --> FAILED
#   INIT --> CANCELLED
#   PENDING --> CANCELLED
#   SETTING_UP --> CANCELLED
#   RUNNING --> CANCELLED
#   INIT --> FAILED_DRIVER
#   PENDING --> FAILED_DRIVER
#   SETTING_UP --> FAILED_DRIVER
#   RUNNING --> FAILED_DRIVER
JOB_TRANSITIONS: Mapping[JobStatus | None, frozenset[JobStatus | None]] = {
    None: frozenset({JobStatus.INIT}),
    JobStatus.INIT: frozenset({JobStatus.PENDING, JobStatus.CANCELLED, JobStatus.FAILED_DRIVER}),
    JobStatus.PENDING: frozenset(
        {JobStatus.SETTING_UP, JobStatus.RUNNING, JobStatus.CANCELLED, JobStatus.FAILED_DRIVER}
    ),
    JobStatus.SETTING_UP: frozenset(
        {
            JobStatus.RUNNING,
            JobStatus.SUCCEEDED,
            JobStatus.FAILED_SETUP,
            JobStatus.CANCELLED,
            JobStatus.FAILED_DRIVER,
        }
    ),
    JobStatus.RUNNING: frozenset({JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.FAILED_DRIVER}),
    JobStatus.SUCCEEDED: frozenset(),
    JobStatus.FAILED: frozenset(),
    JobStatus.FAILED_SETUP: frozenset(),
    JobStatus.FAILED_DRIVER: frozenset(),
    JobStatus.CANCELLED: frozenset(),
}

# stateDiagram-v2
#   [*] --> PENDING: stored, the client has its id
#   PENDING --> RUNNING: its first step begins
#   PENDING --> WAITING: another request holds the lane
#   RUNNING --> WAITING: a step parks, or the server stops
#   WAITING --> RUNNING
#   RUNNING --> SUCCEEDED
#   PENDING --> FAILED
#   WAITING --> FAILED
#   RUNNING --> FAILED
#   PENDING --> CANCELLED
#   WAITING --> CANCELLED
#   RUNNING --> CANCELLED
REQUEST_TRANSITIONS: Mapping[RequestStatus | None, frozenset[RequestStatus | None]] = {
    None: frozenset({RequestStatus.PENDING}),
    RequestStatus.PENDING: frozenset(
        {RequestStatus.RUNNING, RequestStatus.WAITING, RequestStatus.FAILED, RequestStatus.CANCELLED}
    ),
    RequestStatus.WAITING: frozenset({RequestStatus.RUNNING, RequestStatus.FAILED, RequestStatus.CANCELLED}),
    RequestStatus.RUNNING: frozenset(
        {RequestStatus.WAITING, RequestStatus.SUCCEEDED, RequestStatus.FAILED, RequestStatus.CANCELLED}
    ),
    RequestStatus.SUCCEEDED: frozenset(),
    RequestStatus.FAILED: frozenset(),
    RequestStatus.CANCELLED: frozenset(),
}

_TABLES: Mapping[type, Mapping[Any, frozenset[Any]]] = {
    ClusterStatus: CLUSTER_TRANSITIONS,
    JobStatus: JOB_TRANSITIONS,
    RequestStatus: REQUEST_TRANSITIONS,
}


def check_transition(before: S | None, after: S | None) -> S | None:
    """`after`, when its table allows it to follow `before` (None = no row). Staying as one is is always allowed.

    Raises `IllegalTransition`, or `TypeError` for an enum that has no table.
    """
    if before is after:
        return after
    kind = type(after if before is None else before)
    if kind not in _TABLES:
        raise TypeError(f"{kind.__name__} has no transition table")
    if after not in _TABLES[kind].get(before, frozenset()):
        raise IllegalTransition(before, after)
    return after


def start_states(table: Mapping[S | None, frozenset[S | None]]) -> frozenset[S | None]:
    """The states in which a row may be written first; the store's insert guard."""
    return table[None]
