"""The whole product on machines of a pool: launch, exec, logs, queue, cancel, down, and nothing stays on them."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from skyinfra.testing.hosts import Host, HostLab
from skyinfra.testing.world import World, wait_until

pytestmark = [pytest.mark.engine, pytest.mark.timeout(240)]


def declare(world: World, lab: HostLab, **pool: Any) -> None:
    """All hosts of the lab as the pool ``rack``."""
    for host in lab.hosts.values():
        host.wait_for_sshd()
    hosts = [{"ip": host.address, "user": host.user} for host in lab.hosts.values()]
    declared = {"rack": {"identity_file": str(lab.key), **pool, "hosts": hosts}}
    (world.home.root / "ssh_node_pools.yaml").write_text(json.dumps(declared))
    world.run("ssh", "up")


def task(world: World, name: str, run: str, **extra: Any) -> Path:
    return world.task(name, run, resources={"infra": "ssh/rack"}, **extra)


@pytest.fixture
def rack(world: World, lab: HostLab) -> Host:
    """A pool of one machine."""
    host = lab.host("gpu1", user="ubuntu", gpus=("NVIDIA H100 80GB HBM3",))
    declare(world, lab)
    return host


def test_a_clusters_whole_life_on_a_machine_that_is_clean_afterwards(world: World, lab: HostLab, rack: Host) -> None:
    before = rack.files()
    assert "free" in world.run("ssh", "status").stdout
    world.run("launch", "-y", "-c", "c", str(task(world, "t", "hostname; id -un; echo data > ~/kept")))
    assert "ubuntu" in world.run("logs", "c", "1").stdout
    assert "data" in world.run("exec", "c", "cat ~/kept; nvidia-smi -L || true").stdout
    long = task(world, "long", "echo running; sleep 600")
    world.run("exec", "-d", "c", str(long))
    wait_until(lambda: "running" in world.run("logs", "--no-follow", "c", "3").stdout, 20, "the job runs")
    world.run("cancel", "-y", "c", "3")
    states = {job["job_id"]: job["status"] for job in world.json("queue", "c")}
    assert states == {1: "SUCCEEDED", 2: "SUCCEEDED", 3: "CANCELLED"}
    assert "held" in world.run("ssh", "status").stdout
    [record] = world.json("status", "-r", "c")
    assert record["status"] == "UP"
    refused = world.run("stop", "-y", "c", check=1).stderr
    assert "cannot be stopped" in refused
    world.run("down", "-y", "c")
    assert rack.files() == before
    assert "free" in world.run("ssh", "status").stdout


def test_people_log_in_by_the_clusters_name(world: World, rack: Host) -> None:
    config = Path(world.env["HOME"]) / ".ssh" / "config"
    config.parent.mkdir(mode=0o700)
    config.write_text("Host other\n  User nobody\n")
    world.run("launch", "-y", "-c", "c", str(task(world, "t", "mkdir -p ~/sky_workdir; echo hi > ~/sky_workdir/mine")))
    said = rack_ssh(world, "c", "id -un; cat sky_workdir/mine")
    assert said.splitlines() == ["ubuntu", "hi"]
    assert config.read_text().endswith("Host other\n  User nobody\n")
    world.run("down", "-y", "c")
    assert not (world.home.root / "generated" / "ssh" / "c").exists()


def rack_ssh(world: World, name: str, command: str) -> str:
    import subprocess

    config = Path(world.env["HOME"]) / ".ssh" / "config"  # OpenSSH looks in the passwd entry's home, not in $HOME
    argv = ["ssh", "-F", str(config), "-o", "BatchMode=yes", name, command]
    return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=30, env=world.env).stdout


def test_a_full_pool_names_who_holds_what(world: World, rack: Host) -> None:
    world.run("launch", "-y", "-c", "first", str(task(world, "t", "true")))
    refused = world.run("launch", "-y", "-c", "second", str(task(world, "t", "true")), check=1)
    assert f"{rack.address} is held by cluster first" in refused.stderr
    assert [record["name"] for record in world.json("status")] == ["first"]


@pytest.mark.parametrize(
    "name",
    [
        "provider.ssh_machine.create.made",
        pytest.param("provider.ssh_machine.create.before", marks=pytest.mark.slow),
        pytest.param("provider.remote_agent.create.made", marks=pytest.mark.slow),
        pytest.param("provider.remote_agent.create.recorded", marks=pytest.mark.slow),
    ],
)
def test_a_worker_killed_in_the_middle_of_a_lease_leaks_nothing(world: World, rack: Host, name: str) -> None:
    before = rack.files()
    hold = world.faults.arm(name)
    client = world.popen("launch", "-y", "-c", "c", str(task(world, "t", "echo hi")))
    os.kill(hold.wait_reached(60), signal.SIGKILL)
    hold.release()
    client.communicate(timeout=120)
    assert client.returncode == 0
    world.run("down", "-y", "c")
    assert rack.files() == before


@pytest.mark.slow
def test_a_reboot_ends_the_jobs_and_the_cluster_goes_on(world: World, rack: Host) -> None:
    world.run("launch", "-y", "-c", "c", str(task(world, "t", "echo data > ~/kept")))
    world.run("exec", "-d", "c", str(task(world, "long", "echo running; sleep 600")))
    wait_until(lambda: "running" in world.run("logs", "--no-follow", "c", "2").stdout, 20, "the job runs")
    rack.reboot(power_cut=True)
    rack.wait_for_sshd()

    def ended() -> bool:
        done = world.run("queue", "c", "-o", "json", check=None)
        return done.returncode == 0 and json.loads(done.stdout)[0]["status"] == "FAILED_DRIVER"

    wait_until(ended, 90, "the agent is back and has ended its job")
    assert "data" in world.run("exec", "c", "cat ~/kept", timeout_s=90).stdout
    world.run("down", "-y", "c")


def test_bad_words_get_one_clear_line(world: World, rack: Host) -> None:
    unknown = world.run("ssh", "up", "--infra", "rock", check=1).stderr
    assert unknown.splitlines()[0] == "error: there is no ssh node pool 'rock'; there are: rack"
    bad = world.root / "bad.yaml"
    bad.write_text("rack:\n  hots: [a]\n  hosts: [b]\n")
    wrong = world.run("ssh", "up", "-f", str(bad), check=1).stderr
    assert f"{bad}:2:3: unknown key 'hots'; did you mean 'hosts'?" in wrong
    assert "Traceback" not in wrong + unknown
    (world.home.root / "ssh_node_pools.yaml").write_text("rack: [\n")
    assert "ssh_node_pools.yaml:2:1: not valid YAML" in world.run("ssh", "status", check=1).stderr


def test_a_job_on_four_machines_of_which_one_loses_its_power(world: World, lab: HostLab) -> None:
    hosts = {name: lab.host(name, user="ubuntu") for name in ("a", "b", "c", "d")}
    declare(world, lab)
    before = {name: host.files() for name, host in hosts.items()}
    four = task(world, "four", 'echo "rank $SKYPILOT_NODE_RANK of $SKYPILOT_NUM_NODES"', num_nodes=4)
    said = world.run("launch", "-y", "-c", "c", str(four), timeout_s=120).stdout
    nodes = ("head", "worker1", "worker2", "worker3")
    for rank, node in enumerate(nodes):
        assert f"({node}, rank={rank}, pid=" in said
        assert f"rank {rank} of 4" in said
    found = [rack_ssh(world, "c" if node == "head" else f"c-{node}", "hostname").strip() for node in nodes]
    assert sorted(found) == sorted(hosts)

    world.run("exec", "-d", "c", str(task(world, "long", "sleep 600", num_nodes=4)))
    wait_until(lambda: world.json("queue", "c")[0]["status"] == "RUNNING", 30, "the job runs on all")
    dead = hosts[found[2]]
    dead.power_cut()
    wait_until(lambda: world.json("queue", "c")[0]["status"] == "FAILED", 60, "the job has failed")
    wait_until(lambda: "LOST" in world.run("status", "-v").stdout, 30, "the node is LOST")
    dead.boot()
    dead.wait_for_sshd()
    said = world.run("launch", "-y", "-c", "c", str(four), timeout_s=120).stdout
    assert all(f"rank {rank} of 4" in said for rank in range(4))
    world.run("down", "-y", "c", timeout_s=60)
    assert [name for name, host in hosts.items() if host is not dead and host.files() != before[name]] == []
    assert "held" not in world.run("ssh", "status").stdout
