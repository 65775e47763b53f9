"""Stop and start, end to end: processes end, disks stay, and the stack's history shows both."""

from __future__ import annotations

import json
import os
import signal

import pytest

from skyinfra.testing.world import World, wait_until

pytestmark = [pytest.mark.engine, pytest.mark.timeout(240)]


def _status(world: World, name: str = "c") -> str:
    (record,) = world.json("status", name)
    return record["status"]


def _node_processes(world: World) -> list[int]:
    return [p.pid for p in world.processes() if "SKYINFRA_AGENT_STATE" in p.env]


def _versions(world: World) -> list[dict[str, object]]:
    """The stack's updates, oldest first: kind and the power that its configuration declared."""
    files = sorted((world.home.backend / ".pulumi" / "history").rglob("*.history.json"))
    found = []
    for file in files:
        update = json.loads(file.read_text())
        spec = json.loads(update["config"]["skyinfra:cluster"])
        found.append({"kind": update["kind"], "power": spec["power"], "boot": spec["boot"]})
    return found


def test_stop_ends_every_process_and_start_brings_disk_ledger_and_autostop_back(world: World) -> None:
    task = world.task("t", "echo data > ~/kept; echo hi")
    world.run("launch", "-y", "-c", "c", "-i", "600", str(task))
    world.run("exec", "-d", "c", str(world.task("long", "setsid sleep 997 & sleep 998")))
    wait_until(lambda: len([p for p in world.processes() if p.argv[:1] == ("sleep",)]) == 2, 20, "the job runs")
    (machine,) = world.home.nodes.iterdir()
    version = json.loads((machine / "agent" / "agent.json").read_text())["version"]
    world.run("stop", "-y", "c")
    assert _node_processes(world) == []
    assert _status(world) == "STOPPED"
    assert not list(world.home.sockets(world.env).glob("*.sock"))
    jobs = {job["job_id"]: job["status"] for job in world.json("queue", "c")}
    assert jobs == {1: "SUCCEEDED", 2: "FAILED_DRIVER"}
    refused = world.run("exec", "c", "echo no", check=1)
    assert refused.stderr.splitlines()[0] == "error: Cluster 'c' is not up: STOPPED."
    world.run("start", "-y", "c")
    (record,) = world.json("status", "c")
    assert (record["status"], record["autostop"]) == ("UP", 600)
    assert "data" in world.run("exec", "c", "cat ~/kept").stdout
    assert [job["status"] for job in world.json("queue", "c")] == ["SUCCEEDED", "FAILED_DRIVER", "SUCCEEDED"]
    agent = json.loads((machine / "agent" / "agent.json").read_text())
    assert (agent["version"], agent["boot"]) == (version, 1)
    assert "hi" in world.run("logs", "c", "1").stdout
    assert _versions(world) == [
        {"kind": "update", "power": "running", "boot": 0},
        {"kind": "update", "power": "stopped", "boot": 0},
        {"kind": "update", "power": "running", "boot": 1},
    ]
    world.run("down", "-y", "c")
    assert not list(world.home.nodes.iterdir())


def test_launch_on_a_stopped_cluster_starts_it_and_down_takes_a_stopped_one(world: World) -> None:
    world.run("launch", "-y", "-c", "c", str(world.task("one", "echo one > ~/kept")))
    world.run("stop", "-y", "c")
    world.run("stop", "-y", "c")
    done = world.run("launch", "-y", "-c", "c", str(world.task("two", "cat ~/kept")))
    assert "one" in done.stdout
    assert len(list(world.home.nodes.iterdir())) == 1
    world.run("stop", "-y", "-a")
    world.run("down", "-y", "c")
    assert world.json("status") == []
    assert not list(world.home.nodes.iterdir())


def test_stop_during_a_launch_cancels_it_and_launch_during_a_stop_waits(world: World) -> None:
    world.run("launch", "-y", "-c", "c", str(world.task("one", "echo one")))
    world.run("stop", "-y", "c")
    hold = world.faults.arm("provider.machine.update.before")
    launch = world.popen("launch", "-y", "-c", "c", str(world.task("two", "echo two")))
    hold.wait_reached(30)
    stop = world.popen("stop", "-y", "c")
    wait_until(lambda: any(r["name"] == "sky.stop" for r in world.json("api", "status")), 20, "stop was accepted")
    hold.release()
    _, err = launch.communicate(timeout=90)
    assert launch.returncode == 1, err
    _, err = stop.communicate(timeout=90)
    assert stop.returncode == 0, err
    assert _status(world) == "STOPPED"
    assert _node_processes(world) == []
    world.run("start", "-y", "c")
    hold = world.faults.arm("provider.machine.stop.made")
    stop = world.popen("stop", "-y", "c")
    hold.wait_reached(30)
    launch = world.popen("launch", "-y", "-c", "c", str(world.task("three", "echo three")))
    wait_until(lambda: any(r["status"] == "WAITING" for r in world.json("api", "status")), 20, "the launch waits")
    hold.release()
    assert stop.wait(90) == 0
    out, err = launch.communicate(timeout=90)
    assert launch.returncode == 0, err
    assert b"three" in out
    assert _status(world) == "UP"


def test_a_machine_stopped_from_outside_is_seen_and_declared_before_any_up(world: World) -> None:
    world.run("launch", "-y", "-c", "c", str(world.task("one", "echo one > ~/kept")))
    (machine,) = world.home.nodes.iterdir()
    record = json.loads((machine / "machine.json").read_text())
    (machine / "machine.json").write_text(json.dumps({**record, "power": "stopped"}))
    for pid in _node_processes(world):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: _status(world) == "STOPPED", 30, "the server sees it")
    assert _node_processes(world) == []
    assert [v["power"] for v in _versions(world)] == ["running", "stopped"]
    assert "one" in world.run("launch", "-y", "-c", "c", str(world.task("two", "cat ~/kept"))).stdout


def test_a_start_waits_for_a_gpu_that_another_cluster_holds(world: World) -> None:
    (world.home.root / "local.yaml").write_text("{cpus: 2, memory_gb: 2, gpus: {H100: 1}}")
    world.env["SKYINFRA_RETRY_S"] = "0.5"
    task = world.task("t", "echo hi", resources={"infra": "local", "accelerators": "H100:1"})
    world.run("launch", "-y", "-c", "a", str(task))
    world.run("stop", "-y", "a")
    world.run("launch", "-y", "-c", "b", str(task))
    done = world.run("start", "-y", "a", check=1)
    assert "0 of 1 are free" in done.stderr
    assert _status(world, "a") == "STOPPED"
    start = world.popen("start", "-y", "-r", "a")
    wait_until(
        lambda: any(r["status"] == "WAITING" and r["name"] == "sky.start" for r in world.json("api", "status")),
        60,
        "it waits without a process",
    )
    world.run("down", "-y", "b")
    _, err = start.communicate(timeout=90)
    assert start.returncode == 0, err
    assert _status(world, "a") == "UP"


def test_resize_in_place(world: World) -> None:
    (world.home.root / "local.yaml").write_text("{cpus: 4, memory_gb: 8}")
    small = {"infra": "local", "cpus": 1, "memory": 1}
    world.run("launch", "-y", "-c", "c", str(world.task("t", "echo data > ~/kept", resources=small)))
    (machine,) = world.home.nodes.iterdir()
    agent = json.loads((machine / "agent" / "agent.json").read_text())
    large = str(world.task("t", "cat ~/kept", resources={**small, "cpus": 4}))
    assert "4 CPUs asked" in world.run("launch", "-y", "-c", "c", large, check=1).stderr
    assert "data" in world.run("launch", "-y", "-c", "c", "--resize", large).stdout
    (record,) = world.json("status", "c")
    assert record["cpus"] == "4"
    assert json.loads((machine / "machine.json").read_text())["cpus"] == 4
    assert json.loads((machine / "agent" / "agent.json").read_text())["pid"] == agent["pid"], "no agent was restarted"
    too_large = str(world.task("t", "echo", resources={**small, "cpus": 5}))
    assert "this host has 4" in world.run("launch", "-y", "-c", "c", "--resize", too_large, check=1).stderr
    assert _status(world) == "UP"
