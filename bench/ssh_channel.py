"""The ssh channel against a test host: memory, round trips, how late a log is, and how much goes through.

The floor and peer beside it is OpenSSH on the same link: `scp` of the same bytes, `ssh HOST true`.
"""

from __future__ import annotations

import asyncio
import socket
import statistics
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from bench.measure import Row, median_s, pss_mib
from skyinfra.channels import AgentClient, connect, ssh
from skyinfra.channels.ssh_tunnel import CONTROL
from skyinfra.channels.tunnel_client import TunnelClient
from skyinfra.model.home import Home
from skyinfra.runtime.protocol import JobSubmit
from skyinfra.testing.hosts import Host, HostLab, HostsUnavailable
from skyinfra.testing.hosts.agent import TOKEN, AgentOnHost
from skyinfra.testing.world import World, wait_until

MACHINES = 16
DELAY_MS = 10.0
DATA_BYTES = 1 << 30
LOG_LINES = 100
CHUNK_BYTES = 1 << 20
SINK = """
import socket
listener = socket.socket(socket.AF_UNIX)
listener.bind("sink")
listener.listen()
connection = listener.accept()[0]
with open("received", "wb", buffering=0) as file:
    while data := connection.recv(1 << 20):
        file.write(data)
connection.sendall(b"done")
"""


def rows(world: World) -> Iterator[Row]:
    try:
        lab = HostLab()
    except HostsUnavailable as exc:
        yield Row("ssh channel", "-", f"not measured: {exc}")
        return
    home = world.home
    with lab:
        agents = {f"gpu{n}": AgentOnHost(lab, lab.host(f"gpu{n}", user="ubuntu"), home) for n in range(MACHINES)}
        first = agents["gpu0"]
        tunnel = ssh.configure(home, lambda channel: agents[channel["machine"]].target)
        yield from _requests(lab, first, home, tunnel)
        yield _log_lag(first)
        one = pss_mib([tunnel.ask({"op": "state"})["pid"]])
        for agent in agents.values():
            _talk(agent, AgentClient.health)
        every = pss_mib([tunnel.ask({"op": "state"})["pid"]])
        yield Row("ssh: tunnel, 1 machine", "-", f"{one:.0f} MiB PSS")
        yield Row(f"ssh: tunnel, {MACHINES} machines", "-", f"{every:.0f} MiB PSS")
        yield _throughput(lab, first, home)
        tunnel.retire()


def _talk(agent: AgentOnHost, act: Callable[[AgentClient], Awaitable[Any]]) -> Any:
    async def go() -> Any:
        async with await connect(agent.node, TOKEN) as client:
            return await act(client)

    return asyncio.run(go())


async def _kept_alive_s(client: AgentClient) -> float:
    await client.health()
    begun = time.perf_counter()
    await client.health()
    return time.perf_counter() - begun


async def _fresh_s(client: AgentClient) -> float:
    begun = time.perf_counter()
    await client.health()
    return time.perf_counter() - begun


def _requests(lab: HostLab, agent: AgentOnHost, home: Home, tunnel: TunnelClient) -> Iterator[Row]:
    """Each kind of request on the bare link, and what a slower one adds, in round trips."""
    argv = ["ssh", "-F", "none", "-i", str(lab.key), "-oStrictHostKeyChecking=no", "-oUserKnownHostsFile=/dev/null"]
    argv += ["-oLogLevel=ERROR", f"ubuntu@{agent.host.address}", "true"]

    def cold_s() -> float:
        tunnel.retire()
        wait_until(lambda: not (home.tunnel() / CONTROL).exists(), 30, "the tunnel has ended")
        tunnel.ask({"op": "state"})  # starting the process is not what is asked here
        return _talk(agent, _fresh_s)

    def openssh_s() -> float:
        begun = time.perf_counter()
        subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)
        return time.perf_counter() - begun

    ways: dict[str, Callable[[], float]] = {
        "first request (connects)": cold_s,
        "request on a new stream": lambda: _talk(agent, _fresh_s),
        "request on an open stream": lambda: _talk(agent, _kept_alive_s),
        "OpenSSH: ssh HOST true": openssh_s,
    }
    bare = {name: median_s(once, 5) for name, once in ways.items()}
    lab.delay(agent.host, ms=DELAY_MS)
    slow = {name: median_s(once, 5) for name, once in ways.items()}
    lab.mend(agent.host)
    for name in ways:
        trips = (slow[name] - bare[name]) * 1000 / (2 * DELAY_MS)
        yield Row(f"ssh: {name}", "-", f"{bare[name] * 1000:.1f} ms", f"{trips:.1f} round trips of {2 * DELAY_MS:g} ms")


def _log_lag(agent: AgentOnHost) -> Row:
    """From a line's writing to its arrival: one clock, as both ends are this machine's."""
    run = f"python3 -uc 'import time\nfor _ in range({LOG_LINES}): print(\"at\", time.time()); time.sleep(0.03)'"

    async def act(client: AgentClient) -> list[float]:
        job_id, lags = await client.submit(JobSubmit(key="lag", run=run)), []
        async with client.log(job_id, follow=True) as stream:
            async for chunk in stream.chunks:
                now = time.time()
                lags += [now - float(line.split()[-1]) for line in chunk.decode().splitlines() if " at " in f" {line}"]
        return lags

    lag_ms = statistics.median(_talk(agent, act)) * 1000
    return Row("ssh: a log line's way, median", "<= 60 ms", f"{lag_ms:.1f} ms", "", lag_ms <= 60)


def _throughput(lab: HostLab, agent: AgentOnHost, home: Home) -> Row:
    """Bytes written to a file there, through the tunnel and by scp, one after the other."""
    host, size = agent.host, DATA_BYTES
    data = home.root / "data"
    with data.open("wb") as file:
        for _ in range(size // CHUNK_BYTES):
            file.write(bytes(CHUNK_BYTES))
    argv = ["scp", "-q", "-F", "none", "-i", str(lab.key), "-oStrictHostKeyChecking=no"]
    argv += ["-oUserKnownHostsFile=/dev/null", "-oLogLevel=ERROR", str(data), f"ubuntu@{host.address}:received-by-scp"]
    begun = time.perf_counter()
    subprocess.run(argv, check=True)
    scp = size / 1e6 / (time.perf_counter() - begun)
    ours = size / 1e6 / _send_s(host, agent, data.read_bytes())
    data.unlink()
    return Row(
        "ssh: throughput of the tunnel", ">= 60 % of scp", f"{ours:.0f} MB/s", f"scp {scp:.0f}", ours >= 0.6 * scp
    )


def _send_s(host: Host, agent: AgentOnHost, data: bytes) -> float:
    host.path("/home/ubuntu/sink.py").write_text(SINK)
    host.console("cd ~ && nohup python3 sink.py >/dev/null 2>&1 &", user="ubuntu")
    wait_until(lambda: host.path("/home/ubuntu/sink").exists(), 30, "the sink listens")
    path = ssh.local_socket({**agent.node["channel"], "socket": "~/sink"})
    begun = time.perf_counter()
    with socket.socket(socket.AF_UNIX) as way:
        way.connect(path)
        way.sendall(data)
        way.shutdown(socket.SHUT_WR)
        if way.recv(4) != b"done":
            raise RuntimeError("the stream broke")
    return time.perf_counter() - begun
