"""The same seam with the real server in a process of its own: what needs no cluster and no engine."""

from __future__ import annotations

import os
import signal

from skyinfra.testing.world import World


def test_the_first_command_starts_a_server_and_every_reading_command_has_its_exit_code(world: World) -> None:
    done = world.run("status")
    assert (done.stdout, done.stderr) == ("", "No existing clusters.\n")
    pid = world.server_pid()
    assert world.json("status") == []
    assert world.json("api", "status", "-a") == []
    assert world.json("api", "info")["api_version"] == "1"
    codes = {
        ("queue", "nope"): 0,
        ("down", "-y", "nope"): 0,
        ("logs", "nope"): 1,
        ("logs", "nope", "--status"): 1,
        ("exec", "nope", "true"): 1,
        ("cancel", "nope", "-a", "-y"): 2,
        ("status", "--ip", "nope"): 1,
        ("api", "logs", "zz"): 1,
        ("api", "cancel", "zz"): 0,
    }
    for argv, code in codes.items():
        done = world.run(*argv, check=code)
        assert done.stdout == "", argv
        assert "Traceback" not in done.stderr, argv
        assert "nope" in done.stderr or "zz" in done.stderr or argv[1] == "cancel", argv
    assert world.server_pid() == pid
    assert {entry["owner"] for entry in world.json("doctor")["entries"]} == {"server"}
    assert world.run("api", "stop").stderr == "The API server was stopped.\n"
    assert world.server_pid() is None
    assert world.run("api", "stop").stderr == "The API server is not running.\n"


def test_a_task_that_cannot_be_placed_is_one_error_and_leaves_no_cluster(world: World) -> None:
    done = world.run("launch", "-y", "-c", "c", "--infra", "local", "--cpus", "4096", "true", check=1)
    assert done.stdout == ""
    assert "4096" in done.stderr
    (request,) = world.json("api", "status", "-a")
    assert (request["name"], request["status"]) == ("sky.launch", "FAILED")
    assert world.json("status") == []


def test_a_command_that_finds_the_server_killed_starts_another(world: World) -> None:
    world.run("api", "start")
    killed = world.server_pid()
    assert killed is not None
    os.kill(killed, signal.SIGKILL)
    assert world.json("status") == []
    assert world.server_pid() not in (None, killed)
