"""One node with a real agent, behind each kind of channel."""

from __future__ import annotations

import asyncio
import shlex
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from skyinfra.channels import AgentClient, connect, ssh
from skyinfra.channels.ssh_connection import SshTarget
from skyinfra.channels.ssh_connection import connect as ssh_connect
from skyinfra.channels.tunnel_client import TunnelClient
from skyinfra.model.home import Home
from skyinfra.runtime import package
from skyinfra.stacks.clouds.local import agent_process
from skyinfra.stacks.clouds.local import machine as machines
from skyinfra.stacks.clouds.local.settings import LocalSettings
from skyinfra.testing.hosts import Host, HostLab
from skyinfra.testing.world import processes_of, wait_until

TOKEN = "agent-token"


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

    def start_agent(self) -> None:
        argv = "/usr/bin/python3 -ISB agent.pyz serve --state state --home home --socket a.sock --boot 0 --generation 0"
        start = f"cd ~/.node && exec setsid {argv} --cpus 2 --ip 127.0.0.1 </dev/null >>agent.log 2>&1 &"
        with ssh_connect(self.target, time.monotonic() + 60) as connection:
            assert connection.run(f"sh -c {shlex.quote(start)}").code == 0
        listens = "grep -c a.sock /proc/net/unix || true"
        wait_until(lambda: int(self.host.console(listens)), 60, "the agent listens")

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
    known = home.root / "known_hosts"
    target = SshTarget(host.address, user="ubuntu", identity_file=str(lab.key), known_hosts=known, use_config=False)
    with ssh_connect(target, time.monotonic() + 60) as connection:
        assert connection.run("mkdir -p -m 700 .node .node/state .node/home").code == 0
        connection.put(package.build(short_path / "pyz").read_bytes(), ".node/agent.pyz", 0o600)
        connection.put(TOKEN.encode(), ".node/state/token", 0o600)
    tunnel = ssh.configure(home, lambda _: target)
    channel = {"kind": "ssh", "cloud": "test", "machine": "gpu1", "socket": "~/.node/a.sock"}
    node = Node(
        {"slot": 0, "id": "gpu1", "channel": channel},
        lambda name: host.path(f"/home/ubuntu/.node/home/{name}").read_bytes(),
    )
    parts = SshNode(lab, host, target, home, tunnel, node)
    try:
        parts.start_agent()
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
