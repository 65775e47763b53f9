"""Agents on this host: started as wanted, replaced when not; no engine."""

from __future__ import annotations

import json

import pytest

from skyinfra.model.home import Home
from skyinfra.runtime import package
from skyinfra.stacks.clouds.failures import CloudError
from skyinfra.stacks.clouds.local import agent_process
from skyinfra.stacks.clouds.local import machine as machines
from skyinfra.stacks.clouds.local.settings import LocalSettings

TOKEN = "agent-token"
SETTINGS = LocalSettings(cpus=4, memory_gb=4)


@pytest.fixture
def node(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    home = Home(tmp_path / "home")
    home.root.mkdir()
    machine = machines.create(home, machines.Declared(cluster="c-abcdef", slot=0, cpus=2), SETTINGS)
    wanted = agent_process.Wanted(machine.id, package.agent_version(), 0, 0)
    try:
        agent_process.ensure_running(home, wanted, TOKEN, lambda: False)
        yield {"slot": 0, "id": machine.id, "channel": agent_process.channel_of(home, machine.id), "home": home}
    finally:
        machines.delete(home, machine.id)
    assert not list(home.nodes.iterdir())


def test_the_agent_is_left_alone_when_it_is_as_wanted_and_replaced_when_not(node):
    home, machine_id = node["home"], node["id"]
    record = home.nodes / machine_id / "agent" / "agent.json"
    first = record.read_text()
    wanted = agent_process.Wanted(machine_id, package.agent_version(), 0, 0)
    agent_process.ensure_running(home, wanted, TOKEN, lambda: False)
    assert record.read_text() == first
    agent_process.ensure_running(home, agent_process.Wanted(machine_id, wanted.version, 1, 0), None, lambda: False)
    assert record.read_text() != first


def test_a_version_that_is_not_here_is_named(node):
    wanted = agent_process.Wanted(node["id"], "0.0.9+12345678", 0, 0)
    with pytest.raises(CloudError, match=r"0\.0\.9\+12345678") as caught:
        agent_process.ensure_running(node["home"], wanted, TOKEN, lambda: False)
    assert caught.value.kind == "ours"


def test_the_agents_environment_holds_nothing_of_ours(node, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary")
    home, machine_id = node["home"], node["id"]
    wanted = agent_process.Wanted(machine_id, package.agent_version(), 2, 0)
    agent_process.ensure_running(home, wanted, TOKEN, lambda: False)
    pid = json.loads((home.nodes / machine_id / "agent" / "agent.json").read_text())["pid"]
    with open(f"/proc/{pid}/environ", "rb") as file:
        assert b"canary" not in file.read()
