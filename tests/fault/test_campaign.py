"""Kill -9 of every kind of process, at boundaries and at seeded random times.

The quick lane: each verb with each victim once, plus 30 random times, on SQLite; on PostgreSQL, where a server's death
is the one that the database sees, a few deaths of the server. `--all` (slow): all of that on PostgreSQL, too, and every
boundary that the verb reaches, with the process itself and the server as victims; on PostgreSQL only those that the
server comes by itself, the others are nightly. A failure prints its seed; run it again with
``SKYINFRA_FAULT_SEED=<seed>``.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from typing import Any

import pytest
from fault_campaign import VERBS, VICTIMS, Scenario

from skyinfra.testing.faults import find_boundaries
from skyinfra.testing.world import World

SEED = int(os.environ.get("SKYINFRA_FAULT_SEED", "20261124"))
RANDOM_TIMES = 30

#: The length of each verb here when nobody is killed; random kills fall within it (seconds).
LENGTH_S = {
    "launch": 2.5,
    "exec": 0.8,
    "cancel": 0.6,
    "stop": 1.3,
    "start": 1.5,
    "autostop": 4.0,
    "rollback": 2.5,
    "down": 1.2,
}

#: A boundary at which a victim of that kind surely exists, per verb: where the process stands when it is killed.
MOMENT = {
    ("launch", "client"): "request.launch.provision.before",
    ("launch", "server"): "request.launch.provision.made",
    ("launch", "worker"): "provider.machine.create.made",
    ("launch", "engine"): "provider.agent.create.before",
    ("launch", "agent"): "request.launch.submit.made",
    ("launch", "zygote"): "request.launch.submit.before",
    ("launch", "supervisor"): "supervisor.run.started",
    ("exec", "client"): "request.exec.submit.before",
    ("exec", "server"): "request.exec.submit.made",
    ("exec", "worker"): "request.exec.submit.before",
    ("exec", "engine"): "request.exec.submit.before",
    ("exec", "agent"): "agent.spawn.made",
    ("exec", "zygote"): "agent.spawn.before",
    ("exec", "supervisor"): "supervisor.started",
    ("cancel", "client"): "agent.cancel.before",
    ("cancel", "server"): "agent.cancel.made",
    ("cancel", "worker"): "agent.cancel.before",
    ("cancel", "engine"): "agent.cancel.before",
    ("cancel", "agent"): "agent.cancel.made",
    ("cancel", "zygote"): "agent.cancel.before",
    ("cancel", "supervisor"): "agent.cancel.before",
    ("stop", "client"): "request.stop.power.before",
    ("stop", "server"): "request.stop.power.made",
    ("stop", "worker"): "provider.machine.stop.made",
    ("stop", "engine"): "provider.machine.stop.before",
    ("stop", "agent"): "request.stop.power.before",
    ("stop", "zygote"): "request.stop.drain.before",
    ("stop", "supervisor"): "request.stop.power.before",
    ("start", "client"): "request.start.up.before",
    ("start", "server"): "request.start.up.made",
    ("start", "worker"): "provider.machine.update.made",
    ("start", "engine"): "provider.agent.create.before",
    ("start", "agent"): "request.start.settle.before",
    ("start", "zygote"): "request.start.settle.before",
    ("start", "supervisor"): "request.start.settle.before",
    ("autostop", "client"): "request.autostop.set.before",
    ("autostop", "server"): "request.expire.power.made",
    ("autostop", "worker"): "provider.machine.stop.made",
    ("autostop", "engine"): "provider.machine.stop.before",
    ("autostop", "agent"): "request.expire.drain.before",
    ("autostop", "zygote"): "request.expire.power.before",
    ("autostop", "supervisor"): "request.autostop.tell.before",
    ("rollback", "client"): "request.rollback.up.before",
    ("rollback", "server"): "request.rollback.up.made",
    ("rollback", "worker"): "provider.machine.update.made",
    ("rollback", "engine"): "provider.machine.update.before",
    ("rollback", "agent"): "request.rollback.up.made",
    ("rollback", "zygote"): "request.rollback.up.before",
    ("rollback", "supervisor"): "request.rollback.up.before",
    ("down", "client"): "request.down.destroy.before",
    ("down", "server"): "request.down.destroy.made",
    ("down", "worker"): "worker.destroy.made",
    ("down", "engine"): "provider.machine.delete.before",
    ("down", "agent"): "request.down.destroy.before",
    ("down", "zygote"): "request.down.destroy.before",
    ("down", "supervisor"): "request.down.destroy.before",
}

pytestmark = [pytest.mark.engine, pytest.mark.timeout(240)]

#: What the quick lane does on PostgreSQL.
QUICK_ON_POSTGRES = {("launch", "server"), ("stop", "server"), ("rollback", "server"), ("down", "server")}


def _on_both(cases: list[tuple[Any, ...]], lane: Callable[[tuple[Any, ...]], list[Any]]) -> list[Any]:
    """Each case on SQLite as it is, and on PostgreSQL with the marks of its `lane`."""
    on_postgres = [pytest.param("postgres", *case, marks=[pytest.mark.postgres, *lane(case)]) for case in cases]
    return [*(pytest.param("sqlite", *case) for case in cases), *on_postgres]


def _lane_of_victim(case: tuple[Any, ...]) -> list[Any]:
    return [] if case in QUICK_ON_POSTGRES else [pytest.mark.slow]


def _lane_of_boundary(case: tuple[Any, ...]) -> list[Any]:
    _, boundary = case
    return [] if boundary.startswith(("request.", "server.", "launcher.")) else [pytest.mark.nightly]


@pytest.mark.parametrize(
    ("database", "verb", "victim"),
    _on_both([(verb, victim) for verb in VERBS for victim in VICTIMS], _lane_of_victim),
    indirect=["database"],
)
def test_a_victim_killed_at_a_boundary_leaves_nothing_orphaned_doubled_or_stuck(
    world: World, verb: str, victim: str
) -> None:
    scenario = Scenario(world, verb, SEED)
    scenario.prepare()
    hold = world.faults.arm(MOMENT[verb, victim])
    scenario.begin()
    hold.wait_reached(30)
    scenario.kill(victim)
    hold.release()
    scenario.settle_and_check()


@pytest.mark.parametrize(
    ("database", "number"),
    _on_both([(number,) for number in range(RANDOM_TIMES)], lambda case: [pytest.mark.slow]),
    indirect=["database"],
)
def test_a_random_victim_killed_at_a_random_time_leaves_nothing_orphaned_doubled_or_stuck(
    world: World, number: int
) -> None:
    seed = SEED + number
    draw = random.Random(seed)
    verb, victim = draw.choice(VERBS), draw.choice(VICTIMS)
    delay_s = draw.uniform(0, LENGTH_S[verb])
    scenario = Scenario(world, verb, seed)
    scenario.prepare()
    scenario.begin()
    scenario.wait(delay_s)
    killed = scenario.kill(victim)
    try:
        scenario.settle_and_check()
    except AssertionError as error:
        raise AssertionError(
            f"seed {seed}: {verb}, {killed} {victim}(s) killed after {delay_s:.3f} s: {error}"
        ) from error


#: Boundaries that only one verb comes by, by the beginning of their name; all others are tried with every verb.
ONLY = {
    "request.revive.": None,  # the server's own request: tests/fault/test_job_lives_on.py
    "worker.recover.": None,  # reached by every test here that kills a worker
    "worker.refresh.": None,
    "agent.poweroff.": None,  # the net under a dead server: tests/e2e/test_autostop.py
    "gang.": None,  # several nodes: tests/contract/agent/test_gangs.py, these three
    "rank.": None,
    "supervisor.gate.": None,
    "agent.hooks.": None,  # tests/contract/agent/test_agent_autostop.py
    "agent.autostop.": "autostop",
    "request.expire.": "autostop",
    "provider.machine.stop.": "stop",
    "provider.machine.update.": "start",
    "server.vault_key.": None,
    "server.announce.": None,
    "server.lease.": None,  # tests/e2e/test_team.py
    "server.token.": None,  # tests/e2e/test_team.py
    "client.server_start.": None,
    "worker.init.": "launch",
    "worker.up.": "launch",
    "provider.machine.create.": "launch",
    "provider.agent.create.": "launch",
    "agent.start.": "launch",
    "worker.destroy.": "down",
    "provider.machine.delete.": "down",
    "provider.agent.delete.": "down",
    "agent.kill.": "down",
    "agent.cancel.": "cancel",
}


def _slow_cases() -> list[tuple[str, str]]:
    cases = []
    for name in find_boundaries():
        verbs = VERBS
        for beginning, verb in [*ONLY.items(), *((f"request.{v}.", v) for v in VERBS)]:
            if name.startswith(beginning):
                verbs = (verb,) if verb else ()
        cases += [(verb, name) for verb in verbs]
    return cases


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["self", "server"])
@pytest.mark.parametrize(
    ("database", "verb", "boundary"), _on_both(_slow_cases(), _lane_of_boundary), indirect=["database"]
)
def test_every_boundary_that_a_verb_reaches_can_be_the_end_of_a_process(
    world: World, verb: str, boundary: str, victim: str
) -> None:
    scenario = Scenario(world, verb, SEED)
    scenario.prepare()
    hold = world.faults.arm(boundary)
    scenario.begin()
    reached = scenario.wait_reached_or_done(hold)
    if reached is None:
        pytest.skip(f"{verb} does not come by {boundary}")
    scenario.kill_pid(reached) if victim == "self" else scenario.kill("server")
    hold.release()
    scenario.settle_and_check()
