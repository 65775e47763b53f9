"""A running job does not notice the death of agent, zygote or server; a killed agent comes back by itself."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from fault_campaign import AGENT_PIDS

from skyinfra.testing.world import World, wait_until

pytestmark = [pytest.mark.engine, pytest.mark.timeout(180)]

BEAT = """
import os, sys, time
print("start", os.getpid(), flush=True)
n = 0
end = time.monotonic() + float(sys.argv[1])
while time.monotonic() < end:
    n += 1
    print("beat", os.getpid(), n, time.monotonic(), flush=True)
    time.sleep(0.01)
print("end", n, flush=True)
"""


def _beating(world: World, seconds: float) -> Path:
    script = world.root / "beat.py"
    script.write_text(BEAT)
    return world.task("beat", f"exec {os.path.realpath('/proc/self/exe')} {script} {seconds}")


def _check_log(text: str) -> None:
    lines = [line.split(") ", 1)[1].split() for line in text.splitlines() if ") " in line]
    starts = [words for words in lines if words[0] == "start"]
    beats = [words for words in lines if words[0] == "beat"]
    assert len(starts) == 1, starts
    assert {words[1] for words in beats} == {starts[0][1]}
    assert [int(words[2]) for words in beats] == list(range(1, len(beats) + 1))
    times = [float(words[3]) for words in beats]
    assert max(b - a for a, b in itertools.pairwise(times)) < 1.0
    assert lines[-1][0] == "end"


def _run_log(world: World) -> bytes:
    (path,) = world.home.nodes.glob("*/home/sky_logs/1-*/run.log")
    return path.read_bytes()


@pytest.mark.parametrize("victims", [("agent",), ("zygote",), ("agent", "zygote"), ("server",), ("server", "agent")])
def test_a_running_job_outlives(world: World, victims: tuple[str, ...]) -> None:
    client = world.popen("launch", "-y", "-c", "c", str(_beating(world, 8)))
    wait_until(
        lambda: b"beat" in b"".join(p.read_bytes() for p in world.home.nodes.glob("*/home/sky_logs/1-*/run.log")),
        60,
        "the job beats",
    )
    for victim in victims:
        pids = [world.server_pid()] if victim == "server" else AGENT_PIDS[victim](world)
        for pid in pids:
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
    out, err = client.communicate(timeout=90)
    assert client.returncode == 0, err
    _check_log(out.decode())
    assert out == _run_log(world), "the client's bytes are the file's"


def test_a_killed_agent_with_a_running_job_is_back_within_15_s_without_a_client(world: World) -> None:
    world.run("launch", "-y", "-d", "-c", "c", str(_beating(world, 30)))
    (record,) = world.home.nodes.glob("*/agent/agent.json")
    before = json.loads(record.read_text())
    os.kill(before["pid"], signal.SIGKILL)

    def back() -> bool:
        now = json.loads(record.read_text())
        return now["pid"] != before["pid"] and os.path.exists(f"/proc/{now['pid']}")

    wait_until(back, 15, "another agent")
    wait_until(lambda: world.json("queue", "c")[0]["status"] == "RUNNING", 15, "the job still runs")
    history = [r for r in world.json("api", "status", "-a") if r["name"] != "sky.launch"]
    assert history, "bringing the agent back is a request like any other"


def test_frames_long_lines_and_foreign_bytes_arrive_as_they_are(world: World) -> None:
    script = world.root / "odd.py"
    script.write_text(
        "import sys\n"
        "out = sys.stdout.buffer\n"
        "for n in range(50): out.write(b'\\rframe %d' % n)\n"
        "out.write(b'\\n' + b'x' * 300_000 + b'\\n' + bytes(range(256)) + b'\\n')\n"
    )
    task = world.task("odd", f"{os.path.realpath('/proc/self/exe')} {script}")
    client = world.popen("launch", "-y", "-c", "c", str(task), stderr=subprocess.DEVNULL)
    out, _ = client.communicate(timeout=60)
    assert client.returncode == 0
    assert out == _run_log(world)
    assert b"\rframe 48\rframe 49" in out
    assert b"x" * 300_000 in out
    assert bytes(b for b in range(256) if b != 10) in out.replace(b"\n", b"").replace(_prefix(out), b"")


def _prefix(out: bytes) -> bytes:
    return out[: out.index(b") ") + 2]
