"""Clusters that end by themselves, on the real engine: stopped or removed, with hooks, with and without a server."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from skyinfra.testing.world import World, wait_until

pytestmark = [pytest.mark.engine, pytest.mark.timeout(240)]


def _status(world: World) -> str | None:
    records = world.json("status", "c")
    return records[0]["status"] if records else None


def _home(world: World) -> Path:
    (machine,) = world.home.nodes.iterdir()
    return machine / "home"


def test_an_idle_cluster_is_stopped_after_its_hooks_and_shown_autostopping(world: World) -> None:
    world.env["SKYINFRA_MINUTE_S"] = "1"
    hook = {"run": "echo $SKYPILOT_HOOK_EVENT > ~/hooked; until [ -e ~/go ]; do sleep 0.05; done", "events": ["stop"]}
    task = world.task("t", "echo hi", config={"hooks": [hook]})
    world.run("launch", "-y", "-c", "c", "-i", "1", str(task))
    wait_until(lambda: _status(world) == "AUTOSTOPPING", 40, "its idle time is over")
    refused = world.run("exec", "c", "echo no", check=1)
    assert "AUTOSTOPPING" in refused.stderr
    home = _home(world)
    wait_until(lambda: (home / "hooked").exists(), 20, "the hook runs")
    (home / "go").touch()
    wait_until(lambda: _status(world) == "STOPPED", 40, "it is stopped")
    assert (home / "hooked").read_text() == "stop\n"
    assert "exit code 0" in (home / ".sky" / "hooks" / "stop.log").read_text()
    assert [p for p in world.processes() if "SKYINFRA_AGENT_STATE" in p.env] == []


def test_a_running_job_keeps_it_up_and_down_removes_it_in_the_end(world: World) -> None:
    world.env["SKYINFRA_MINUTE_S"] = "0.5"
    world.run("launch", "-y", "-d", "-c", "c", "--down", str(world.task("t", "sleep 6; echo end")))
    assert "end" in world.run("logs", "c").stdout, "it was not ended by its idle clock"
    wait_until(lambda: _status(world) is None, 40, "it is gone")
    assert not list(world.home.nodes.iterdir())


def test_autostop_can_be_called_off_and_each_setting_begins_the_time_anew(world: World) -> None:
    world.env["SKYINFRA_MINUTE_S"] = "1"
    world.run("launch", "-y", "-c", "c", str(world.task("t", "echo hi")))
    done = world.run("autostop", "-y", "c", "-i", "0")
    assert "idle minutes of 0 mean 1" in done.stderr
    world.run("autostop", "-y", "c", "--cancel")
    assert world.json("status", "c")[0]["autostop"] == -1
    world.run("exec", "c", "sleep 3")  # longer than the time that was called off
    assert _status(world) == "UP"
    world.run("autostop", "-y", "c", "-i", "2", "--down")
    record = world.json("status", "c")[0]
    assert (record["autostop"], record["to_down"]) == (2, True)
    wait_until(lambda: _status(world) is None, 40, "it is gone")


@pytest.mark.parametrize("down", [False, True])
def test_without_a_server_the_node_ends_itself_and_the_next_server_draws_the_conclusion(
    world: World, down: bool
) -> None:
    world.env["SKYINFRA_MINUTE_S"] = "1"
    world.run("launch", "-y", "-c", "c", str(world.task("t", "echo data > ~/kept")))
    hold = world.faults.arm("agent.autostop.before")  # the server must not hear of it
    world.run("autostop", "-y", "c", "-i", "3", *(["--down"] if down else []))
    server = world.server_pid()
    assert server is not None
    os.kill(server, signal.SIGKILL)
    hold.wait_reached(30)
    hold.release()
    wait_until(lambda: not [p for p in world.processes() if "SKYINFRA_AGENT_STATE" in p.env], 60, "the node ended")
    (machine,) = world.home.nodes.iterdir()
    assert json.loads((machine / "agent" / "poweroff.json").read_text())["why"] == "autostop"
    assert (machine / "home" / "kept").read_text() == "data\n", "the disk stays"
    wanted = None if down else "STOPPED"
    wait_until(lambda: _status(world) == wanted, 60, f"the next server makes it {wanted}")
    if not down:
        assert "data" in world.run("launch", "-y", "-c", "c", str(world.task("u", "cat ~/kept"))).stdout


@pytest.mark.slow
def test_one_real_minute(world: World) -> None:
    world.run("launch", "-y", "-c", "c", str(world.task("t", "echo hi")))
    (before,) = world.json("status", "c")
    world.run("autostop", "-y", "c", "-i", "1")
    wait_until(lambda: _status(world) == "STOPPED", 110, "it is stopped")
    (after,) = world.json("status", "c")
    assert after["status_updated_at"] - before["status_updated_at"] >= 60
