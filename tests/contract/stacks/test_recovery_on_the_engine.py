"""kill -9 at the step boundaries of an operation: afterwards nothing is leaked, doubled or stuck."""

from __future__ import annotations

import os
import signal
import time

import pytest

from skyinfra.stacks import processes
from skyinfra.stacks.backend import StateUnreadable, open_backend
from skyinfra.stacks.settings import load_settings
from tests.contract.stacks.conftest import wait_for

pytestmark = pytest.mark.engine

UP_BOUNDARIES = [
    "launcher.send.made",
    "worker.start.before",
    "worker.init.before",
    "worker.init.made",
    "worker.up.before",
    "provider.machine.create.before",
    "provider.machine.create.made",
    "provider.machine.create.recorded",
    "provider.agent.create.before",
    "provider.agent.create.made",
    "provider.agent.create.recorded",
    "worker.up.made",
    "worker.up.recorded",
    "worker.result.before",
]
DESTROY_BOUNDARIES = [
    "worker.destroy.before",
    "provider.machine.delete.before",
    "provider.machine.delete.made",
    "provider.machine.delete.recorded",
    "worker.destroy.made",
    "worker.destroy.recorded",
]
QUICK = {"provider.machine.create.made", "provider.agent.create.made", "provider.machine.delete.made"}


def lanes(boundaries):
    return [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in boundaries]


def pending(cluster):
    try:
        state = open_backend(load_settings(cluster.home)).load(cluster.spec.stack)
    except StateUnreadable:
        return []  # it is being written
    return state.pending if state else []


def kill_at(cluster, boundary, kind, spec, victim, freeze_engine=False):
    """Begin the operation, and kill its worker or engine while it stands at the boundary.

    An engine whose worker dies takes the broken connection for a failed create and forgets that it was pending, unless
    its session is ended first: `freeze_engine` decides that race.
    """
    cluster.arm(boundary)
    running = cluster.begin(kind, spec)
    cluster.reached(boundary)
    if freeze_engine:
        # It writes that the create is pending while the create already runs: on a busy machine, after it.
        wait_for(lambda: pending(cluster), what="the pending create in the state")
        os.kill(running.engine(), signal.SIGSTOP)
    pid = running.worker.pid if victim == "worker" else running.engine()
    os.kill(pid, signal.SIGKILL)
    cluster.release()
    running.wait()
    cluster.settle(running)
    return running


def assert_one_of_everything(cluster):
    assert [(seen["id"], seen["state"], seen["agent"]) for seen in cluster.machines()] == [
        (cluster.machine, "running", "alive")
    ]
    assert len(cluster.agents()) == 1


@pytest.mark.parametrize("boundary", lanes(UP_BOUNDARIES[1:]))
def test_an_up_whose_worker_was_killed_is_finished_by_the_next(cluster, boundary):
    kill_at(cluster, boundary, "up", cluster.spec, "worker")
    result = cluster.up()
    assert (result.outcome, result.message) == ("succeeded", "")
    assert_one_of_everything(cluster)
    assert cluster.run("destroy").outcome == "succeeded"
    assert cluster.left() == []


@pytest.mark.parametrize("boundary", lanes(UP_BOUNDARIES[1:]))
def test_an_up_whose_worker_was_killed_can_be_destroyed_without_its_spec(cluster, boundary):
    kill_at(cluster, boundary, "up", cluster.spec, "worker")
    result = cluster.run("destroy")
    assert (result.outcome, result.message) == ("succeeded", "")
    assert cluster.left() == []


@pytest.mark.parametrize("boundary", lanes([name for name in UP_BOUNDARIES if name.startswith("provider.")]))
def test_an_up_whose_engine_was_killed_is_finished_by_the_next(cluster, boundary):
    running = kill_at(cluster, boundary, "up", cluster.spec, "engine")
    assert running.result.outcome == "failed"
    result = cluster.up()
    assert (result.outcome, result.message) == ("succeeded", "")
    assert_one_of_everything(cluster)
    assert cluster.run("destroy").outcome == "succeeded"
    assert cluster.left() == []


@pytest.mark.parametrize("boundary", lanes(DESTROY_BOUNDARIES))
def test_a_destroy_whose_worker_was_killed_is_finished_by_the_next(cluster, boundary):
    cluster.up()
    kill_at(cluster, boundary, "destroy", None, "worker")
    assert cluster.run("destroy").outcome == "succeeded"
    assert cluster.left() == []


@pytest.mark.parametrize("boundary", lanes(DESTROY_BOUNDARIES))
def test_an_up_after_a_killed_destroy_makes_a_whole_cluster(cluster, boundary):
    cluster.up()
    kill_at(cluster, boundary, "destroy", None, "worker")
    result = cluster.up()
    assert (result.outcome, result.message) == ("succeeded", "")
    assert_one_of_everything(cluster)


def test_recover_alone_makes_the_state_agree_with_the_cloud(cluster):
    kill_at(cluster, "provider.machine.create.recorded", "up", cluster.spec, "worker", freeze_engine=True)
    running = cluster.begin("recover", cluster.spec)
    assert running.wait().outcome == "succeeded"
    assert {event.op for event in running.events if event.kind == "recover"} >= {"cancel", "adopt"}
    again = cluster.begin("recover", cluster.spec)
    assert again.wait().outcome == "succeeded"
    assert [event for event in again.events if event.kind == "recover"] == []


def test_a_worker_that_lives_is_not_disturbed(cluster):
    cluster.arm("provider.machine.create.made")
    first = cluster.begin("up", cluster.spec)
    cluster.reached("provider.machine.create.made")
    refused = cluster.up()
    assert (refused.outcome, refused.kind) == ("failed", "engine")
    assert "still runs" in refused.message
    cluster.release()
    assert first.wait().outcome == "succeeded"
    assert_one_of_everything(cluster)


def test_settle_ends_the_whole_session_of_a_worker_whose_server_is_gone(cluster):
    cluster.arm("provider.agent.create.before")
    running = cluster.begin("up", cluster.spec)
    cluster.reached("provider.agent.create.before")
    session = running.worker.pid
    began = time.monotonic()
    assert cluster.settle(running) is None
    assert time.monotonic() - began < 15
    assert processes.session_members(session) == []
    running.wait()
    assert cluster.up().outcome == "succeeded"
    assert_one_of_everything(cluster)


def test_settle_returns_the_result_of_an_operation_that_ended(cluster):
    running = cluster.begin("up", cluster.spec, fence=3)
    result = running.wait()
    assert cluster.settle(running) == result
    assert result.fence == 3
