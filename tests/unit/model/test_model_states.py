"""The state tables are whole: every state has a row, is reachable, and no final state is left."""

import enum
from collections.abc import Mapping

import pytest

from skyinfra.model import transitions
from skyinfra.model.states import (
    ClusterStatus,
    JobStatus,
    ManagedJobStatus,
    ReplicaStatus,
    RequestStatus,
    ServiceStatus,
)

TABLES = [
    pytest.param(ClusterStatus, transitions.CLUSTER_TRANSITIONS, id="cluster"),
    pytest.param(JobStatus, transitions.JOB_TRANSITIONS, id="job"),
    pytest.param(RequestStatus, transitions.REQUEST_TRANSITIONS, id="request"),
]
NEVER_STORED = {ClusterStatus.PENDING}


@pytest.mark.parametrize(("kind", "table"), TABLES)
def test_every_state_has_a_row(kind: type[enum.Enum], table: Mapping) -> None:
    assert set(table) == {None, *kind}


@pytest.mark.parametrize(("kind", "table"), TABLES)
def test_every_stored_state_is_reachable_from_no_row(kind: type[enum.Enum], table: Mapping) -> None:
    seen, ahead = set(), [None]
    while ahead:
        state = ahead.pop()
        if state not in seen:
            seen.add(state)
            ahead += table[state]
    assert seen == {None, *kind} - NEVER_STORED


@pytest.mark.parametrize(("kind", "table"), TABLES[1:])
def test_only_terminal_states_have_no_way_out(kind: type[enum.Enum], table: Mapping) -> None:
    assert {s for s in kind if not table[s]} == {s for s in kind if s.is_terminal()}  # type: ignore[attr-defined]


def test_an_illegal_transition_names_both_states() -> None:
    with pytest.raises(transitions.IllegalTransition, match="JobStatus: SUCCEEDED may not become RUNNING"):
        transitions.check_transition(JobStatus.SUCCEEDED, JobStatus.RUNNING)


def test_a_removed_row_is_a_transition_too() -> None:
    assert transitions.check_transition(ClusterStatus.UP, None) is None
    with pytest.raises(transitions.IllegalTransition):
        transitions.check_transition(RequestStatus.RUNNING, None)


def test_staying_is_allowed_even_in_a_final_state() -> None:
    assert transitions.check_transition(JobStatus.FAILED, JobStatus.FAILED) is JobStatus.FAILED


def test_job_states_compare_in_their_order() -> None:
    assert JobStatus.INIT < JobStatus.RUNNING <= JobStatus.RUNNING < JobStatus.CANCELLED
    assert sorted([JobStatus.FAILED, JobStatus.INIT]) == [JobStatus.INIT, JobStatus.FAILED]


def test_terminal_and_failed_managed_jobs() -> None:
    assert ManagedJobStatus.SUCCEEDED.is_terminal()
    assert not ManagedJobStatus.SUCCEEDED.is_failed()
    assert not ManagedJobStatus.RECOVERING.is_terminal()
    assert all(s.is_terminal() for s in ManagedJobStatus.failure_statuses())


@pytest.mark.parametrize(
    ("replicas", "service"),
    [
        ([], ServiceStatus.NO_REPLICA),
        ([ReplicaStatus.STARTING], ServiceStatus.REPLICA_INIT),
        ([ReplicaStatus.FAILED, ReplicaStatus.STARTING], ServiceStatus.FAILED),
        ([ReplicaStatus.FAILED, ReplicaStatus.READY], ServiceStatus.READY),
    ],
)
def test_a_service_is_as_good_as_its_best_replica(replicas: list, service: ServiceStatus) -> None:
    assert ServiceStatus.from_replica_statuses(replicas) is service


@pytest.mark.parametrize("kind", [ClusterStatus, JobStatus, ManagedJobStatus, ReplicaStatus, ServiceStatus])
def test_every_state_has_a_coloured_form_with_its_name(kind: type[enum.Enum]) -> None:
    assert all(s.value in s.colored_str() for s in kind)  # type: ignore[attr-defined]
