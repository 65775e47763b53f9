"""How fast one agent starts and runs short jobs, and what it weighs: ``python bench/agent_queue.py [-n JOBS]``.

A real agent in a temporary folder, 4 slots, `true` as the job, submitted over one keep-alive connection. Prints one
JSON object: jobs per second from the first submit to the last end, the median from a job's submit to its start, the
median time from starting the process to its first answer, and the memory (PSS) of agent and zygote and of one
running job.
"""

import argparse
import http.client
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from skyinfra.runtime import package, procs

TOKEN = "bench"
SLOTS = 4


class Agent:
    def __init__(self, root: Path) -> None:
        self.root, self.state, self.socket = root, root / "agent", str(root / "s" / "a.sock")
        self.state.mkdir(mode=0o700)
        (self.state / "token").write_text(TOKEN)
        self.pyz = package.build(root)

    def start(self, cpus: int) -> float:
        """Seconds from exec to the first answer."""
        argv = [sys.executable, str(self.pyz), "serve", "--state", str(self.state), "--home", str(self.root / "home")]
        argv += ["--socket", self.socket, "--boot", "1", "--generation", "1", "--cpus", str(cpus)]
        env = {"PATH": os.environ["PATH"], "SKYINFRA_HOME": str(self.root)}
        begun = time.monotonic()
        with open(self.root / "agent.log", "a") as log:
            self.process = subprocess.Popen(argv, env=env, stderr=log, start_new_session=True)
        while self.process.poll() is None:
            try:
                self.connect()
                self.call("GET", "/health")
                return time.monotonic() - begun
            except OSError:
                time.sleep(0.002)
        raise RuntimeError((self.root / "agent.log").read_text())

    def connect(self) -> None:
        self.conn = http.client.HTTPConnection("agent")
        self.conn.sock = socket.socket(socket.AF_UNIX)
        self.conn.sock.connect(self.socket)

    def call(self, method: str, path: str, body: object = None) -> dict:
        raw = None if body is None else json.dumps(body)
        self.conn.request(method, "/v1" + path, raw, {"Authorization": "Bearer " + TOKEN})
        reply = self.conn.getresponse()
        value = json.loads(reply.read())
        if reply.status != 200:
            raise RuntimeError(value)
        return value

    def wait(self, job_ids: list[int], states: set[str]) -> list[dict]:
        ids = ",".join(map(str, job_ids))
        while True:
            rows = self.call("GET", f"/jobs?ids={ids}")["jobs"]
            if all(row["state"] in states for row in rows):
                return rows
            time.sleep(0.005)

    def stop(self) -> None:
        argv = [sys.executable, str(self.pyz), "kill", "--state", str(self.state), "--grace", "6"]
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
        self.process.wait()


def pss_kib(pids: set[int]) -> int:
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/smaps_rollup") as f:
            total += next(int(line.split()[1]) for line in f if line.startswith("Pss:"))
    return total


def throughput(agent: Agent, count: int, tag: str) -> float:
    begun = time.monotonic()
    ids = [
        agent.call("POST", "/jobs", {"key": f"{tag}-{i}", "run": "true", "demand": {"cpus": 1}})["job_id"]
        for i in range(count)
    ]
    agent.wait([ids[-1]], {"SUCCEEDED"})
    agent.wait(ids, {"SUCCEEDED"})
    return count / (time.monotonic() - begun)


def submit_to_start_ms(agent: Agent, count: int) -> float:
    found = []
    for i in range(count):
        job_id = agent.call("POST", "/jobs", {"key": f"lone-{i}", "run": "true", "demand": {"cpus": 1}})["job_id"]
        [row] = agent.wait([job_id], {"SUCCEEDED"})
        found.append((row["started_at"] - row["submitted_at"]) * 1000)
    return statistics.median(found)


def per_job_kib(agent: Agent, count: int) -> tuple[float, float]:
    """(supervisor alone, with the job's own processes), from the growth of everything the agent started."""
    family = lambda: procs.family([agent.process.pid], procs.snapshot())  # noqa: E731
    before = pss_kib(family())
    ids = [
        agent.call("POST", "/jobs", {"key": f"held-{i}", "run": "exec sleep 600", "demand": {"cpus": 0.1}})["job_id"]
        for i in range(count)
    ]
    rows = agent.wait(ids, {"RUNNING"})
    supervisors = {row["pid"] for row in rows}
    table = procs.snapshot()
    while sum(p.name == "sleep" and p.ppid in supervisors for p in table.values()) < count:
        table = procs.snapshot()
    jobs = family() - supervisors - {p.pid for p in table.values() if p.ppid == agent.process.pid} - {agent.process.pid}
    whole, own = pss_kib(family()) - before, pss_kib(jobs)
    return (whole - own) / count, whole / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("-n", type=int, default=400, help="jobs per round (default 400)")
    parser.add_argument("--rounds", type=int, default=3)
    count, rounds = (args := parser.parse_args()).n, args.rounds
    root = Path(tempfile.mkdtemp(prefix="sky-bench-"))
    try:
        ready = []
        agent = Agent(root)
        for _ in range(5):
            ready.append(agent.start(SLOTS))
            agent.stop()
        agent.start(SLOTS)
        throughput(agent, 20, "warm")
        idle = pss_kib(procs.family([agent.process.pid], procs.snapshot()))
        rates = [throughput(agent, count, f"r{i}") for i in range(rounds)]
        lone = submit_to_start_ms(agent, 30)
        supervisor, whole = per_job_kib(agent, 20)
        agent.stop()
    finally:
        shutil.rmtree(root)
    result = {
        "jobs_per_s": round(statistics.median(rates), 1),
        "jobs_per_s_rounds": [round(rate, 1) for rate in rates],
        "submit_to_start_ms": round(lone, 2),
        "ready_s": round(statistics.median(ready), 3),
        "idle_pss_mib": round(idle / 1024, 1),
        "supervisor_pss_mib": round(supervisor / 1024, 2),
        "job_with_its_sleep_pss_mib": round(whole / 1024, 2),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
