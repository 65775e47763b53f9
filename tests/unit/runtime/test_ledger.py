"""The ledger: transitions by table, guarded, each with its event; nothing without."""

import sqlite3

import pytest

from skyinfra.runtime.jobqueue import Demand, Share
from skyinfra.runtime.ledger import ALLOWED, Ledger, NewJob
from skyinfra.runtime.protocol import FINAL_STATES, JOB_STATES


@pytest.fixture
def events():
    return []


@pytest.fixture
def ledger(tmp_path, events):
    opened = Ledger(str(tmp_path / "ledger.db"), events.append)
    yield opened
    opened.close()


def new(job_id=1, key="k"):
    return NewJob(job_id, key, "n", "u", "1x[CPU:1]", "~/l", {"m": 1}, Demand(1, 0), [{"slot": 0}], "t", False, True)


def test_every_state_has_a_row_and_can_be_reached():
    assert set(ALLOWED) == set(JOB_STATES)
    reached, pending = set(), ["INIT"]
    while pending:
        state = pending.pop()
        if state not in reached:
            reached.add(state)
            pending.extend(ALLOWED[state])
    assert reached == set(JOB_STATES)


def test_final_states_lead_nowhere_and_all_others_can_end():
    for state in JOB_STATES:
        assert (ALLOWED[state] == frozenset()) == (state in FINAL_STATES)
        assert state in FINAL_STATES or {"CANCELLED", "FAILED_DRIVER"} <= ALLOWED[state]


def test_a_transition_writes_its_event_in_the_same_breath(ledger, events):
    ledger.insert(new())
    row = ledger.move(1, "PENDING", "RUNNING", pid=7, started_at=2.0)
    assert (row.state, row.pid, row.started_at, row.metadata) == ("RUNNING", 7, 2.0, {"m": 1})
    row = ledger.move(1, "RUNNING", "FAILED", exit_codes=[3])
    assert (row.exit_codes, row.ended_at is not None) == ([3], True)
    assert [(e.seq, e.body["state"]) for e in events] == [(1, "PENDING"), (2, "RUNNING"), (3, "FAILED")]
    assert ledger.events_after(1) == events[1:]
    assert ledger.last_seq() == 3


def test_a_guard_that_no_longer_holds_changes_nothing(ledger, events):
    ledger.insert(new())
    ledger.move(1, "PENDING", "CANCELLED")
    assert ledger.move(1, "PENDING", "RUNNING") is None
    assert ledger.row(1).state == "CANCELLED"
    assert len(events) == 2


@pytest.mark.parametrize("pair", [(s, t) for s in JOB_STATES for t in JOB_STATES if t not in ALLOWED[s]])
def test_transitions_outside_the_table_are_refused(ledger, pair):
    with pytest.raises(ValueError, match="cannot go"):
        ledger.move(1, *pair)


def test_a_known_key_is_refused_and_leaves_no_event(ledger, events):
    ledger.insert(new())
    with pytest.raises(sqlite3.IntegrityError):
        ledger.insert(new(job_id=2))
    assert (ledger.next_id(), ledger.last_seq(), len(events)) == (2, 1, 1)
    assert ledger.id_for_key("k") == 1


def test_an_attempt_is_intended_once_and_not_after_a_cancel(ledger):
    ledger.insert(new())
    share = ((0, Share(1.0, (("gpu", 0.5),))),)
    assert ledger.intend(1, 1, share)
    assert not ledger.intend(1, 1, share)
    assert ledger.plan(1).placement == share
    ledger.withdraw(1, 1)
    assert ledger.plan(1).placement is None
    ledger.want_cancel(1)
    assert not ledger.intend(1, 2, share)


def test_a_reopened_ledger_is_the_same(tmp_path, ledger):
    ledger.insert(new())
    ledger.set_meta("drain", "why")
    again = Ledger(str(tmp_path / "ledger.db"), lambda event: None)
    assert (again.rows(), again.meta("drain"), again.last_seq()) == (ledger.rows(), "why", 1)
    assert [plan.job_id for plan in again.unfinished()] == [1]
    again.close()
