"""Clusters of three local nodes: a job across them, nodes and agents that are lost, stop and start, the end."""

from __future__ import annotations

import os
import re
import shutil
import signal
from pathlib import Path

import pytest

from skyinfra.testing.world import World, wait_until

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

TASK = """\
name: three
num_nodes: 3
resources: {infra: local, cpus: 0.5+}
workdir: WORKDIR
setup: echo set up $SKYPILOT_SETUP_NODE_RANK
run: |
  echo rank $SKYPILOT_NODE_RANK of $SKYPILOT_NUM_NODES has $(cat data)
"""


@pytest.fixture
def task(world: World) -> Path:
    folder = world.root / "workdir"
    folder.mkdir()
    (folder / "data").write_text("the data\n")
    path = world.root / "three.yaml"
    path.write_text(TASK.replace("WORKDIR", str(folder)))
    return path


def nodes(world: World) -> dict[int, Path]:
    """Folder of each slot's machine."""
    return {int(folder.name.rsplit("-", 2)[1]): folder for folder in world.home.nodes.iterdir()}


def agents(world: World) -> dict[int, int]:
    """Slot -> pid of its agent."""
    found = {}
    for process in world.processes():
        if "serve" in process.argv and "--state" in process.argv:
            machine = Path(process.argv[process.argv.index("--state") + 1]).parent
            found[int(machine.name.rsplit("-", 2)[1])] = process.pid
    return found


def health(world: World) -> dict[str, str]:
    (record,) = world.json("status", "c")
    return {slot: one["state"] for slot, one in (record["node_health"] or {}).items()}


def test_one_job_runs_on_three_nodes_with_its_files_and_all_of_it_ends(world: World, task: Path) -> None:
    out = world.run("launch", "-y", "-c", "c", str(task)).stdout
    assert len(re.findall(r"^\(setup, pid=\d+(, ip=[\d.]+)?\) set up [012]$", out, re.M)) == 3
    for rank, node in enumerate(("head", "worker1", "worker2")):
        assert re.search(rf"^\({node}, rank={rank}, pid=\d+.*\) rank {rank} of 3 has the data$", out, re.M)
    (record,) = world.json("status", "c")
    assert (record["nodes"], record["status"]) == (3, "UP")
    assert health(world) == {"1": "READY", "2": "READY"}

    assert "only 1 of 2" in world.run("exec", "c", "--num-nodes", "2", "echo only $SKYPILOT_NODE_RANK of 2").stdout
    refused = world.run("exec", "c", "--num-nodes", "4", "true", check=1)
    assert refused.stderr.startswith("error: Task requires 4 nodes; cluster 'c' has 3.")
    failed = world.run("exec", "c", "--num-nodes", "3", "[ $SKYPILOT_NODE_RANK != 2 ] || exit 7; sleep 300", check=100)
    assert "exit code 7 on rank 2" in failed.stderr.splitlines()[-1]
    assert world.json("queue", "c")[0]["exit_codes"] == [137, 137, 7]

    world.run("logs", "c", "1", "--sync-down")
    names = {path.name for path in (world.root / "user" / "sky_logs").rglob("*.log")}
    assert names >= {"run.log", "rank-0.log", "rank-1.log", "rank-2.log"}
    assert "rank 2 of 3" in world.run("logs", "c", "1", "--rank", "2").stdout

    world.run("down", "-y", "c")
    assert list(world.home.nodes.iterdir()) == []
    assert not [p for p in world.processes() if "SKYINFRA_AGENT_STATE" in p.env]


def test_a_worker_s_agent_that_dies_comes_back_and_its_rank_goes_on(world: World, task: Path) -> None:
    world.run("launch", "-y", "-c", "c", str(task))
    wait = "touch ~/begun; while [ ! -e ~/go ]; do sleep 0.1; done; echo rank $SKYPILOT_NODE_RANK done"
    world.run("exec", "-d", "c", "--num-nodes", "3", wait)
    machines = nodes(world)
    wait_until(lambda: all((machine / "home" / "begun").exists() for machine in machines.values()), 30, "it runs")
    before = agents(world)
    os.kill(before[1], signal.SIGKILL)
    wait_until(lambda: agents(world).get(1) not in (None, before[1]), 60, "the worker's agent is back")
    wait_until(lambda: health(world) == {"1": "READY", "2": "READY"}, 60, "the head hears it")
    for machine in machines.values():
        (machine / "home" / "go").touch()
    out = world.run("logs", "c").stdout
    assert sorted(re.findall(r"rank \d done", out)) == ["rank 0 done", "rank 1 done", "rank 2 done"]
    assert nodes(world) == machines
    assert {slot: agents(world)[slot] for slot in (0, 2)} == {slot: before[slot] for slot in (0, 2)}


def test_a_machine_that_is_gone_is_lost_and_the_next_launch_makes_that_one_anew(world: World, task: Path) -> None:
    world.run("launch", "-y", "-c", "c", str(task))
    world.run("exec", "-d", "c", "--num-nodes", "3", "sleep 300")
    wait_until(lambda: world.json("queue", "c")[0]["status"] == "RUNNING", 30, "it runs")
    before = nodes(world)
    for process in world.processes():  # as when the machine is pulled out of its rack
        if process.env.get("SKYINFRA_AGENT_STATE") == str(before[2] / "agent"):
            os.kill(process.pid, signal.SIGKILL)
    shutil.rmtree(before[2])
    job = wait_until(lambda: (j := world.json("queue", "c")[0])["status"] != "RUNNING" and j, 60, "it fails")
    assert (job["status"], job["exit_codes"]) == ("FAILED", [137, 137, 255])
    assert re.search(r"worker2 \([\d.]+\) was lost", job["reason"])
    wait_until(lambda: health(world).get("2") == "LOST", 30, "the node is LOST")
    assert "2: LOST(not heard for 4 s)" in world.run("status", "-v", "c").stdout
    # what is left serves
    assert "still here" in world.run("exec", "c", "--num-nodes", "2", "echo still here").stdout

    kept = (before[0], before[1])
    out = world.run("launch", "-y", "-c", "c", str(task)).stdout
    assert "rank 2 of 3 has the data" in out
    after = nodes(world)
    assert (after[0], after[1]) == kept
    assert after[2] != before[2]
    assert health(world) == {"1": "READY", "2": "READY"}


def test_a_stopped_cluster_of_several_comes_back_whole(world: World, task: Path) -> None:
    world.run("launch", "-y", "-c", "c", str(task))
    world.run("exec", "-d", "c", "--num-nodes", "3", "sleep 300")
    wait_until(lambda: world.json("queue", "c")[0]["status"] == "RUNNING", 30, "it runs")
    world.run("stop", "-y", "c")
    assert not [p for p in world.processes() if "SKYINFRA_AGENT_STATE" in p.env]
    assert world.json("queue", "c")[0]["status"] == "FAILED_DRIVER"
    world.run("start", "-y", "c")
    assert "rank 2 of 3" in world.run("exec", "c", "--num-nodes", "3", "echo rank $SKYPILOT_NODE_RANK of 3").stdout
    assert [j["status"] for j in world.json("queue", "c")] == ["SUCCEEDED", "FAILED_DRIVER", "SUCCEEDED"]


def test_the_example_on_two_nodes_trains_one_model(world: World) -> None:
    root = Path(__file__).parents[2]
    out = world.run("launch", "-y", "-c", "pair", "examples/two-nodes.yaml", cwd=root).stdout
    answers = re.findall(r"^\((head|worker1), rank=[01], .*\) step 60: (y = 3\.0\d\dx \+ 2\.0\d\d)$", out, re.M)
    assert sorted(node for node, _ in answers) == ["head", "worker1"]
    assert len({answer for _, answer in answers}) == 1
