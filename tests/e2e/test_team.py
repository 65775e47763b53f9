"""A server for a team: another state folder logs in to it with a token, works there, and leaves."""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from skyinfra.testing.world import World


@pytest.fixture
def laptop() -> Iterator[World]:
    """A second person's state folder, on which no server may come up."""
    root = Path(tempfile.mkdtemp(prefix="skyl-"))
    world = World(root)
    try:
        yield world
        assert world.processes("server") == []
    finally:
        world.close()
        shutil.rmtree(root, ignore_errors=True)


def address_of(world: World) -> str:
    record = json.loads(world.home.server_json.read_text())
    return f"http://127.0.0.1:{record['port']}"


def test_people_log_in_work_and_are_shut_out(world: World, laptop: World) -> None:
    world.run("api", "start", "--deploy", "--host", "localhost", "--port", "0")
    endpoint = address_of(world)
    made = world.json("api", "token", "create", "laptop", "--user", "ann", "--expires", "1h")
    wrong = laptop.run("api", "login", "-e", endpoint, "-t", "sky_wrong", check=1)
    assert wrong.stderr.startswith("error: ")
    assert "Traceback" not in wrong.stderr
    assert not laptop.home.config.exists()

    laptop.home.config.write_text("# mine\nallowed_clouds: [local]  # only this\n")
    laptop.run("api", "login", "-e", endpoint, "-t", made["token"])
    assert laptop.home.config.stat().st_mode & 0o077 == 0
    assert "# mine\nallowed_clouds: [local]  # only this\n" in laptop.home.config.read_text()
    assert laptop.json("api", "info")["user"]["name"] == "ann"

    laptop.run("launch", "-y", "-c", "hers", str(laptop.task("hi", "echo hi from ann")))
    assert [one["name"] for one in laptop.json("status")] == ["hers"]
    assert world.json("status") == []
    assert [one["user_name"] for one in world.json("status", "-u")] == ["ann"]
    assert "hi from ann" in laptop.run("logs", "hers").stdout
    assert laptop.run("doctor", check=1).stderr.startswith("error: ann has the role user, which may not: doctor")
    assert "started" in world.run("api", "logs", "--server-logs", "--no-follow").stdout
    assert laptop.run("api", "stop", check=None).returncode in (0, 1)
    assert world.processes("server") != []

    laptop.run("down", "-y", "hers")
    world.run("api", "token", "revoke", made["id"])
    shut = laptop.run("status", check=1)
    assert shut.stderr.startswith("error: ")
    assert "api login" in shut.stderr
    laptop.run("api", "logout")
    assert laptop.home.config.read_text() == "# mine\nallowed_clouds: [local]  # only this\n"


def test_a_token_in_the_environment_needs_no_login(world: World, laptop: World) -> None:
    world.run("api", "start")
    token = world.run("api", "token", "create", "ci", "--role", "viewer").stdout.strip()
    env = {**laptop.env, "SKYPILOT_API_SERVER_ENDPOINT": address_of(world), "SKYPILOT_SERVICE_ACCOUNT_TOKEN": token}
    assert laptop.run("status", env=env).returncode == 0
    refused = laptop.run("launch", "-y", "-c", "x", str(laptop.task("hi", "true")), env=env, check=1)
    assert "has the role viewer" in refused.stderr


def test_a_workspace_is_used_and_preferred(world: World) -> None:
    task = str(world.task("hi", "true"))
    world.run("launch", "-y", "-c", "a", "-w", "lab", task)
    assert [one["workspace"] for one in world.json("status")] == ["lab"]
    assert world.json("status", "-w", "default") == []
    world.run("exec", "a", task)  # found by its name alone
    world.run("workspace", "use", "lab")
    assert world.json("workspace", "info")["workspace"] == "lab"
    bad = world.run("workspace", "use", "Lab", check=1)
    assert "error: workspace name 'Lab' is not valid" in bad.stderr
    world.run("down", "-y", "a")


def test_status_in_full(world: World) -> None:
    task = world.task("hi", "true", resources={"infra": "local", "cpus": 1, "ports": ["8080", 9000]})
    world.run("launch", "-y", "-c", "c", str(task))
    (record,) = world.json("status", "c")
    ip = world.run("status", "--ip", "c").stdout.strip()
    assert ip == record["handle"]["head_ip"]
    own = record["handle"]["internal_ips"][0]
    assert world.run("status", "--endpoint", "8080", "c").stdout == f"{own}:8080\n"
    assert world.run("status", "--endpoints", "c").stdout == f"8080: {own}:8080\n9000: {own}:9000\n"
    assert "Port 22 is not open" in world.run("status", "--endpoint", "22", "c", check=1).stderr
    assert world.run("status", "--endpoints", check=2).stderr.startswith("error: ")
    heads = world.run("status", "-v", "-u").stdout.splitlines()[0].split()
    assert heads[:4] == ["NAME", "USER", "USER_ID", "WORKSPACE"]
    assert " ".join(heads).endswith("STATUS AUTOSTOP LAUNCHED HEAD_IP HEALTH COMMAND LAST_EVENT")
    world.run("down", "-y", "c")
    (cost,) = world.json("cost-report")
    assert (cost["name"], cost["status"], cost["total_cost"]) == ("c", None, 0.0)
    table = world.run("cost-report").stdout.splitlines()
    assert table[0].split() == ["NAME", "LAUNCHED", "DURATION", "RESOURCES", "STATUS", "COST/hr", "COST", "(est.)"]
    assert "TERMINATED" in table[1]
    assert world.run("check").stdout.splitlines()[1].split()[:2] == ["local", "enabled"]
    assert world.run("check", "aws", check=1).stderr.startswith("error: ")


@pytest.mark.parametrize("boundary", ["server.lease.before", "server.lease.recorded"])
def test_a_server_killed_as_it_takes_the_lease_holds_nobody_up(world: World, boundary: str) -> None:
    hold = world.faults.arm(boundary)
    starting = world.popen("api", "start")
    os.kill(hold.wait_reached(30), signal.SIGKILL)
    starting.communicate(timeout=60)
    hold.release()
    assert world.run("status").returncode == 0
    assert len(world.processes("server")) == 1


def test_a_server_killed_as_it_makes_a_token_has_made_it_or_not(world: World) -> None:
    world.run("api", "start")
    hold = world.faults.arm("server.token.recorded")
    client = world.popen("api", "token", "create", "x")
    os.kill(hold.wait_reached(30), signal.SIGKILL)
    client.communicate(timeout=60)
    hold.release()
    assert client.returncode == 1  # the answer with the token is lost, and asking twice would make two
    (left,) = world.json("api", "token", "list")
    world.run("api", "token", "revoke", left["id"])
