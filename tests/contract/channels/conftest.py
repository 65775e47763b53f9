"""One node with a real agent, behind each kind of channel."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from skyinfra.channels import AgentClient, connect, ssh
from skyinfra.channels.ssh_connection import SshTarget
from skyinfra.channels.tunnel_client import TunnelClient
from skyinfra.model.home import Home
from skyinfra.runtime import package
from skyinfra.stacks.clouds.local import agent_process
from skyinfra.stacks.clouds.local import machine as machines
from skyinfra.stacks.clouds.local.settings import LocalSettings
from skyinfra.testing.hosts import Host, HostLab
from skyinfra.testing.hosts.agent import TOKEN, AgentOnHost
from skyinfra.testing.world import processes_of, wait_until


@dataclass(frozen=True)
class Node:
    """`node` as a stack's outputs have it; `file` reads one below the node's home."""

    node: dict[str, Any]
    file: Callable[[str], bytes]

    def talk(self, act: Callable[[AgentClient], Awaitable[Any]], token: str = TOKEN) -> Any:
        async def go() -> Any:
            async with await connect(self.node, token) as agent:
                return await act(agent)

        return asyncio.run(go())

    def elsewhere(self) -> Node:
        """The same, but nobody listens there."""
        channel = {**self.node["channel"], "socket": self.node["channel"]["socket"] + ".none"}
        return replace(self, node={**self.node, "channel": channel})


@dataclass
class SshNode:
    """A node on a test host, and the parts of its channel."""

    lab: HostLab
    host: Host
    target: SshTarget
    home: Home
    tunnel: TunnelClient
    node: Node
    agent: AgentOnHost

    def start_agent(self) -> None:
        self.agent.start()

    def tunnel_pid(self) -> int:
        return self.tunnel.ask({"op": "state"})["pid"]


@pytest.fixture
def short_path() -> Iterator[Path]:
    """For unix sockets."""
    path = Path(tempfile.mkdtemp(prefix="skyc-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def local_node(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short_path))
    home = Home(short_path / "home")
    home.root.mkdir()
    machine = machines.create(home, machines.Declared(cluster="c-abcdef", slot=0, cpus=2), LocalSettings(4, 4))
    wanted = agent_process.Wanted(machine.id, package.agent_version(), 0, 0)
    try:
        agent_process.ensure_running(home, wanted, TOKEN, lambda: False)
        node = {"slot": 0, "id": machine.id, "channel": agent_process.channel_of(home, machine.id)}
        yield Node(node, lambda name: (home.nodes / machine.id / "home" / name).read_bytes())
    finally:
        machines.delete(home, machine.id)


@pytest.fixture
def ssh_node(lab: HostLab, short_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SshNode]:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short_path))
    home = Home(short_path / "home")
    home.root.mkdir()
    host = lab.host("gpu1", user="ubuntu")
    agent = AgentOnHost(lab, host, home)
    tunnel = ssh.configure(home, lambda _: agent.target)
    parts = SshNode(
        lab, host, agent.target, home, tunnel, Node(agent.node, lambda n: agent.file(n).read_bytes()), agent
    )
    try:
        yield parts
    finally:
        parts.tunnel.retire()
        wait_until(lambda: not list(processes_of(home.root)), 60, "the tunnel process has ended")


@pytest.fixture(params=["local", "ssh"])
def node(request: pytest.FixtureRequest) -> Node:
    """The same suite over every kind."""
    if request.param == "ssh":
        return request.getfixturevalue("ssh_node").node
    return request.getfixturevalue("local_node")
