"""The queue: shares, backfill beside the head, and that the head is never starved."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skyinfra.runtime.jobqueue import Demand, JobQueue, check_demand

GPUS = ["a", "b", "c"]
demands = st.builds(
    Demand,
    cpus=st.sampled_from([0.0, 0.5, 1.0, 2.0, 4.0]),
    gpus=st.sampled_from([0.0, 0.25, 0.5, 1.0, 2.0, 3.0]),
    nodes=st.just(1),
    slots=st.none(),
)
gangs = st.builds(
    Demand,
    cpus=st.sampled_from([0.5, 1.0, 2.0, 4.0]),
    gpus=st.sampled_from([0.0, 0.5, 1.0, 2.0]),
    nodes=st.integers(1, 3),
    slots=st.none(),
)


def used(queue):
    return queue._used(0), queue.cpus - queue._free_cpus(0)


@settings(max_examples=150, deadline=None)
@given(st.lists(demands, max_size=14), st.randoms(use_true_random=False))
def test_no_more_is_given_out_than_there_is_and_all_jobs_end(jobs, random):
    queue = JobQueue(4, GPUS)
    waiting, running = {}, []
    arrivals = list(enumerate(jobs, 1))
    while arrivals or waiting or running:
        if arrivals and random.random() < 0.5:
            job_id, demand = arrivals.pop(0)
            waiting[job_id] = demand
        elif running:
            queue.release(running.pop(random.randrange(len(running))))
        for job_id, ((_, share),) in queue.pick(waiting):
            demand = waiting.pop(job_id)
            running.append(job_id)
            assert share.cpus == demand.cpus
            assert sum(amount for _, amount in share.devices) == demand.gpus
            assert demand.gpus < 1 or all(amount == 1 for _, amount in share.devices)
        devices, cpus = used(queue)
        assert cpus <= 4
        assert all(amount <= 1 for amount in devices.values())
        assert waiting == {} or running or arrivals, "nothing runs, yet something waits"


@settings(max_examples=150, deadline=None)
@given(st.lists(demands, min_size=1, max_size=6), demands, st.lists(demands, max_size=30), st.randoms())
def test_the_head_runs_once_all_that_ran_before_it_have_ended(first, head, younger, random):
    queue = JobQueue(4, GPUS)
    before = {-job_id: demand for job_id, demand in enumerate(first, 1)}
    old = [job_id for job_id, _ in queue.pick(dict(before))]
    waiting = {0: head}
    stream = list(enumerate(younger, 1))
    while old:
        if stream:
            job_id, demand = stream.pop(0)
            waiting[job_id] = demand
        for job_id, _ in queue.pick(waiting):
            del waiting[job_id]  # the younger ones never end
        if 0 not in waiting:
            return
        queue.release(old.pop(random.randrange(len(old))))
    for job_id, _ in queue.pick(waiting):
        del waiting[job_id]
    assert 0 not in waiting


def test_jobs_start_in_order_while_they_fit():
    queue = JobQueue(2, [])
    assert [j for j, _ in queue.pick({1: Demand(1, 0), 2: Demand(1, 0), 3: Demand(1, 0)})] == [1, 2]
    queue.release(1)
    assert [j for j, _ in queue.pick({3: Demand(1, 0)})] == [3]


def test_fractions_fill_one_device_before_they_touch_another():
    queue = JobQueue(9, GPUS)
    started = dict(queue.pick({1: Demand(0.5, 0.5), 2: Demand(0.5, 0.5), 3: Demand(0.5, 0.25)}))
    assert [started[job][0][1].device_ids for job in (1, 2, 3)] == [["a"], ["a"], ["b"]]


def test_younger_fractions_do_not_refill_a_device_that_is_promised():
    queue = JobQueue(9, ["a"])
    queue.pick({1: Demand(0.5, 0.5)})
    assert queue.pick({2: Demand(0.5, 1), 3: Demand(0.5, 0.5)}) == []
    queue.release(1)
    assert [j for j, _ in queue.pick({2: Demand(0.5, 1), 3: Demand(0.5, 0.5)})] == [2]


def test_a_job_that_no_longer_fits_the_node_does_not_block_others():
    queue = JobQueue(4, [])
    queue.resize(2, [])
    assert [j for j, _ in queue.pick({1: Demand(4, 0), 2: Demand(1, 0)})] == [2]


@pytest.mark.parametrize("demand", [(-1, 0), (1, -1), (1, 2.5), (float("nan"), 0), (float("inf"), 0)])
def test_demands_that_no_node_can_give_are_refused(demand):
    with pytest.raises(ValueError, match="must be"):
        check_demand(*demand)


def cluster():
    queue = JobQueue(4, ["a", "b"])
    queue.resize(4, ["a", "b"], slot=1)
    queue.resize(2, ["a", "b"], slot=2)
    return queue


@settings(max_examples=150, deadline=None)
@given(st.lists(gangs, max_size=14), st.randoms(use_true_random=False))
def test_a_gang_gets_all_its_nodes_or_none_and_no_node_gives_more_than_it_has(jobs, random):
    queue = cluster()
    waiting = {job_id: demand for job_id, demand in enumerate(jobs, 1) if queue.fits(demand)}
    running = []
    while waiting or running:
        for job_id, placement in queue.pick(waiting):
            demand = waiting.pop(job_id)
            running.append(job_id)
            assert len({slot for slot, _ in placement}) == len(placement) == demand.nodes
            assert [slot for slot, _ in placement] == sorted(slot for slot, _ in placement)
        for slot in range(3):
            assert queue._free_cpus(slot) >= 0
            assert all(amount <= 1 for amount in queue._used(slot).values())
        assert running or not waiting, "nothing runs, yet something waits"
        if running:
            queue.release(running.pop(random.randrange(len(running))))


@settings(max_examples=150, deadline=None)
@given(st.lists(gangs, min_size=1, max_size=6), gangs, st.lists(gangs, max_size=30), st.randoms())
def test_a_gang_at_the_head_is_not_starved_by_smaller_ones(first, head, younger, random):
    queue = cluster()
    if not queue.fits(head):
        return
    old = [job_id for job_id, _ in queue.pick({-number: demand for number, demand in enumerate(first, 1)})]
    waiting, stream = {0: head}, list(enumerate(younger, 1))
    while old and 0 in waiting:
        if stream:
            job_id, demand = stream.pop(0)
            waiting[job_id] = demand
        for job_id, _ in queue.pick(waiting):
            del waiting[job_id]  # the younger ones never end
        queue.release(old.pop(random.randrange(len(old))))
    for job_id, _ in queue.pick(waiting):
        del waiting[job_id]
    assert 0 not in waiting


def test_two_gangs_run_at_once_on_other_nodes():
    queue = cluster()
    found = dict(queue.pick({1: Demand(1, 2), 2: Demand(1, 2, nodes=2), 3: Demand(1, 1)}))
    assert [[slot for slot, _ in found[job]] for job in (1, 2)] == [[0], [1, 2]]
    assert 3 not in found


def test_a_node_that_is_away_gets_nothing_and_what_needs_it_blocks_nobody():
    queue = cluster()
    queue.away(2, True)
    assert queue.fits(Demand(1, 0, nodes=3))
    assert [job for job, _ in queue.pick({1: Demand(1, 0, nodes=3), 2: Demand(1, 0, nodes=2)})] == [2]
    queue.away(2, False)
    assert [job for job, _ in queue.pick({1: Demand(1, 0, nodes=3)})] == [1]


def test_named_nodes_are_taken_in_the_order_of_their_ranks():
    queue = cluster()
    ((_, placement),) = queue.pick({1: Demand(1, 0, nodes=2, slots=(2, 0))})
    assert [slot for slot, _ in placement] == [2, 0]
