"""What is particular to the ssh channel: one connection for all, and what happens when a part of the way dies."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
import threading
import time
from pathlib import Path

import pytest

from skyinfra.channels import Unreachable, connect, ssh
from skyinfra.channels.ssh_connection import SshTarget
from skyinfra.channels.tunnel_client import TunnelClient, TunnelFailed
from skyinfra.model.home import Home
from skyinfra.runtime.protocol import JobSubmit
from skyinfra.testing.hosts.agent import TOKEN
from skyinfra.testing.world import processes_of, wait_until

LONG_S = 60.0
LINES = 400


async def healthy(agent):
    return (await agent.health()).state


async def reached(agent):
    """The agent's state, asked until somebody answers; the reasons that were given on the way."""
    reasons, deadline = [], time.monotonic() + LONG_S
    while True:
        try:
            return (await agent.health()).state, reasons
        except Unreachable as exc:
            reasons.append(exc.reason)
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.1)


def logins(ssh_node):
    return ssh_node.host.path("/var/log/sshd.log").read_text().count("Accepted publickey")


def test_thousands_of_requests_go_over_one_connection(ssh_node):
    before = logins(ssh_node)

    async def act(agent):
        for _ in range(40):
            answers = await asyncio.gather(*(agent.health() for _ in range(50)))
            assert {answer.state for answer in answers} == {"ready"}

    ssh_node.node.talk(act)
    assert logins(ssh_node) - before == 1


def test_workers_share_the_servers_tunnel_and_it_ends_after_the_last(ssh_node):
    ssh_node.node.talk(healthy)
    pid = ssh_node.tunnel_pid()
    worker = TunnelClient(ssh_node.home)
    assert worker.ask({"op": "state"})["pid"] == pid
    ssh_node.tunnel.close()
    state = worker.ask({"op": "state"})
    assert (state["pid"], [link["connected"] for link in state["links"]]) == (pid, [True])
    worker.close()
    wait_until(lambda: not list(processes_of(ssh_node.home.root)), LONG_S, "it ends by itself")
    assert sorted(path.name for path in ssh_node.home.tunnel().iterdir()) == ["lock"]
    assert ssh_node.node.talk(healthy) == "ready"
    assert ssh_node.tunnel_pid() != pid


def test_a_killed_tunnel_comes_back_under_the_same_client(ssh_node):
    async def act(agent):
        assert await healthy(agent) == "ready"
        os.kill(ssh_node.tunnel_pid(), signal.SIGKILL)
        state, _ = await reached(agent)
        return state

    assert ssh_node.node.talk(act) == "ready"


def test_the_tunnel_is_started_once_by_many_at_once(ssh_node):
    ssh_node.tunnel.retire()
    clients = [TunnelClient(ssh_node.home) for _ in range(6)]
    pids: list[int] = []
    threads = [threading.Thread(target=lambda c=c: pids.append(c.ask({"op": "state"})["pid"])) for c in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG_S)
    assert len(pids) == 6
    assert len(set(pids)) == 1
    for client in clients:
        client.close()


def test_a_log_goes_on_at_its_offset_after_the_cable_was_cut(ssh_node):
    run = f"for i in $(seq {LINES}); do echo line-$i; sleep 0.02; done"

    async def follow(agent, job_id, data):
        async with agent.log(job_id, offset=len(data), follow=True) as stream:
            async for chunk in stream.chunks:
                data += chunk
                if b"line-30\n" in data and not cut:
                    ssh_node.lab.cut(ssh_node.host)
                    cut.append(time.monotonic())

    async def act(agent):
        job_id = await agent.submit(JobSubmit(key="k", run=run))
        data = bytearray()
        with pytest.raises(Unreachable):
            await follow(agent, job_id, data)
        noticed_s = time.monotonic() - cut[0]
        assert f"line-{LINES}".encode() not in data
        ssh_node.lab.mend(ssh_node.host)
        await reached(agent)
        await follow(agent, job_id, data)
        return data, noticed_s

    cut: list[float] = []
    data, noticed_s = ssh_node.node.talk(act)
    lines = [line for line in data.decode().splitlines() if "line-" in line]
    assert [line.rpartition("line-")[2] for line in lines] == [str(number + 1) for number in range(LINES)]
    assert 10 < noticed_s < LONG_S  # 12 to 14 s; later on a machine with no time to spare


def test_why_nobody_is_reached_is_said(ssh_node):
    ssh_node.node.talk(healthy)
    ssh_node.host.reboot()
    ssh_node.host.wait_for_sshd(LONG_S)
    ssh_node.host.console("rm -f /home/ubuntu/.node/a.sock")
    with pytest.raises(Unreachable, match=r"gives no way to /home/ubuntu/\.node/a\.sock"):
        ssh_node.node.talk(reached_or_told("gives no way"))
    ssh_node.start_agent()
    assert ssh_node.node.talk(healthy) == "ready"
    ssh_node.host.change_host_key()
    ssh_node.host.power_cut()
    ssh_node.host.boot()
    ssh_node.host.wait_for_sshd(LONG_S)
    with pytest.raises(Unreachable, match=r"the host key of .* has changed"):
        ssh_node.node.talk(reached_or_told("has changed"))


def reached_or_told(words):
    """Ask until the reason has these words."""

    async def act(agent):
        deadline = time.monotonic() + LONG_S
        while True:
            try:
                await agent.health()
            except Unreachable as exc:
                if words in exc.reason or time.monotonic() > deadline:
                    raise
            await asyncio.sleep(0.1)

    return act


def test_a_machine_that_moved_is_found_where_it_is_now(ssh_node):
    places = [SshTarget("198.18.250.250", user="ubuntu", use_config=False), ssh_node.target]
    node = ssh_node.node.node
    ssh_node.tunnel.close()
    ssh_node.tunnel = ssh.configure(ssh_node.home, lambda channel: places.pop(0) if len(places) > 1 else places[0])

    async def act():
        async with await connect(node, TOKEN) as lost, await connect(node, TOKEN) as found:
            assert (await found.health()).state == "ready"
            assert (await lost.health()).state == "ready"  # the same route, which leads there now

    asyncio.run(act())


def test_a_password_is_in_no_command_line_and_no_file(ssh_node):
    canary = "canary-7f3a"
    host = ssh_node.lab.host("gpu2", user="ubuntu", password=canary, key=False)
    target = SshTarget(host.address, user="ubuntu", password=canary, use_config=False)
    ssh_node.tunnel.close()
    ssh_node.tunnel = ssh.configure(ssh_node.home, lambda channel: target)
    channel = {**ssh_node.node.node["channel"], "machine": "gpu2"}

    async def act():
        async with await connect({"channel": channel}, TOKEN) as agent:
            await agent.health()

    with pytest.raises(Unreachable, match="gives no way"):  # so it did log in
        asyncio.run(act())
    for process in processes_of(ssh_node.home.root):
        assert canary not in " ".join(process.argv)
        assert canary not in str(process.env)
    for folder in (ssh_node.home.root, ssh_node.home.tunnel()):
        assert not [path for path in folder.rglob("*") if path.is_file() and canary in path.read_text(errors="replace")]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_nothing_is_said_in_a_folder_of_another_user(short_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short_path / "run"))
    home = Home(short_path / "home")
    home.root.mkdir()
    for folder in (home.tunnel(), home.tunnel().parent):
        home.tunnel().mkdir(parents=True, exist_ok=True)
        os.chown(folder, 65534, 65534)
        tunnel = ssh.configure(home, lambda _: SshTarget("h", password="canary", use_config=False))
        with pytest.raises(Unreachable, match=f"{folder} belongs to another user"):
            asyncio.run(connect({"channel": {"kind": "ssh", "machine": "m", "socket": "s"}}, TOKEN))
        os.chown(folder, 0, 0)
        tunnel.close()
    assert not list(processes_of(home.root))


def test_a_process_that_was_told_nothing_says_so(monkeypatch):
    monkeypatch.setattr(ssh._Ways, "tunnel", None)
    with pytest.raises(Unreachable, match="was not told how machines are found"):
        asyncio.run(connect({"channel": {"kind": "ssh", "machine": "m", "socket": "s"}}, TOKEN))


def test_a_socket_that_has_no_place_is_told_and_the_tunnel_goes_on(tmp_path, monkeypatch):
    home = Home(tmp_path / "home")
    home.root.mkdir()
    base = tempfile.mkdtemp(prefix="skyr-")
    # Room for the control socket, not for a route's: its name is six characters longer.
    length = 98 - len(str(home.tunnel({"XDG_RUNTIME_DIR": base}))) - 1
    runtime = Path(base, "r" * length)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    client = TunnelClient(home)
    try:
        for _ in range(2):
            with pytest.raises(TunnelFailed, match=r"cannot do it in .*AF_UNIX path too long"):
                client.route("k", SshTarget("127.0.0.1", known_hosts=home.root / "known_hosts"), "/agent.sock")
        assert client.ask({"op": "state"})["routes"] == 0
    finally:
        client.retire()
        shutil.rmtree(base)
