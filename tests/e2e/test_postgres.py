"""A server on PostgreSQL: the life of a cluster, and requests that survive the death of server and database."""

from __future__ import annotations

import os
import signal

import pytest

from skyinfra.testing.postgres import Postgres
from skyinfra.testing.world import World, wait_until

pytestmark = pytest.mark.postgres


@pytest.fixture
def database() -> str:
    return "postgres"


def test_the_life_of_a_cluster(world: World) -> None:
    done = world.run("launch", "-y", "-c", "c", str(world.task("hi", "echo over postgres")))
    assert "over postgres" in done.stdout
    world.run("exec", "c", "exit 3", check=100)
    assert [job["status"] for job in world.json("queue", "c")] == ["FAILED", "SUCCEEDED"]
    assert not world.home.database.exists()
    world.run("down", "-y", "c")
    assert world.json("status") == []
    assert [row["name"] for row in world.json("api", "status", "-a")][:2] == ["sky.down", "sky.exec"]


@pytest.mark.parametrize(
    "boundary",
    ["server.accept.recorded", "request.launch.place.made", "server.operation.made", "request.launch.submit.made"],
)
def test_a_launch_survives_the_death_of_its_server(world: World, boundary: str) -> None:
    world.run("api", "start")
    hold = world.faults.arm(boundary)
    client = world.popen("launch", "-y", "-c", "c", str(world.task("hi", f"echo x >> {world.witness}/ran")))
    hold.wait_reached(60)
    pid = world.server_pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    hold.release()
    client.communicate(timeout=90)
    assert client.returncode == 0
    assert (world.witness / "ran").read_text() == "x\n"
    world.run("down", "-y", "c")


def test_the_database_may_crash_under_a_server(world: World, postgres: Postgres) -> None:
    world.run("launch", "-y", "-c", "c", str(world.task("hi", "true")))
    postgres.kill()
    postgres.run()
    wait_until(lambda: world.run("status", check=None).returncode == 0, 60, "the server found its database again")
    world.run("exec", "c", "true")
    world.run("down", "-y", "c")
