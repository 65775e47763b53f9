"""One scenario of the fault campaign: a verb runs, a victim is killed with SIGKILL, the world must come to rest.

The rest is what `settle_and_check` says: every request final within 60 s of the next start, nothing that no record
names, no job run twice; and after `down`, nothing at all.
"""

from __future__ import annotations

import collections
import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import fault_scan as scan

from skyinfra.testing.faults import Hold
from skyinfra.testing.world import World, wait_until

VERBS = ("launch", "exec", "cancel", "stop", "start", "autostop", "rollback", "down")
VICTIMS = ("client", "server", "worker", "engine", "agent", "zygote", "supervisor")
SETTLE_S = 60.0
FINAL = {"SUCCEEDED", "FAILED", "CANCELLED"}

#: A job that says once that it started, then works for a moment.
JOB = 'echo "start $SKYPILOT_INTERNAL_JOB_ID $$" >> "$WITNESS"; sleep 0.3; echo done'


class Scenario:
    """A world with (for every verb but launch) a cluster that is up and has one long job."""

    def __init__(self, world: World, verb: str, seed: int) -> None:
        self.world = world
        self.verb = verb
        self.random = random.Random(seed)
        self.witness = world.witness / "starts"
        self.client: subprocess.Popen[bytes] | None = None

    def prepare(self) -> None:
        """Bring about what the verb needs, undisturbed."""
        self._task("first", JOB, cpus=1)
        if self.verb == "autostop":
            self.world.env["SKYINFRA_MINUTE_S"] = "0.5"  # so that what it sets also comes about
        self.world.run("api", "start")
        if self.verb != "launch":
            self.world.run("launch", "-y", "-c", "c1", str(self.world.root / "first.yaml"))
        if self.verb == "start":
            self.world.run("stop", "-y", "c1")
        if self.verb in ("cancel", "stop"):
            self._task("long", 'echo "start $SKYPILOT_INTERNAL_JOB_ID $$" >> "$WITNESS"; sleep 300')
            self.world.run("exec", "-d", "c1", str(self.world.root / "long.yaml"))
            wait_until(lambda: self._starts() >= 2, 20, "the long job started")
        if self.verb == "rollback":
            self._task("larger", "true", cpus=2)
            self.world.run("launch", "-y", "--resize", "-c", "c1", str(self.world.root / "larger.yaml"))

    def begin(self) -> None:
        """Start the verb's client."""
        argv = {
            "launch": ["launch", "-y", "-c", "c1", str(self.world.root / "first.yaml")],
            "exec": ["exec", "c1", str(self.world.root / "first.yaml")],
            "cancel": ["cancel", "-y", "c1", "-a"],
            "stop": ["stop", "-y", "c1"],
            "start": ["start", "-y", "c1"],
            "autostop": ["autostop", "-y", "c1", "-i", "1"],
            "rollback": ["rollback", "-y", "c1", "--to", "1"],
            "down": ["down", "-y", "c1"],
        }[self.verb]
        self.client = self.world.popen(*argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def kill(self, victim: str) -> int:
        """SIGKILL every process of that kind; how many there were."""
        killed = 0
        for pid in self._pids(victim):
            try:
                os.kill(pid, signal.SIGKILL)
                killed += 1
            except ProcessLookupError:
                pass  # it ended between the look and the signal
        return killed

    def kill_pid(self, pid: int) -> None:
        """SIGKILL one process, which stands at a boundary."""
        os.kill(pid, signal.SIGKILL)

    def wait(self, delay_s: float) -> None:
        """Let the verb run for that long; its end is no reason to stop waiting (what it started lives on)."""
        time.sleep(delay_s)

    def wait_reached_or_done(self, hold: Hold) -> int | None:
        """The pid that stands at the boundary, or None when the verb ended without passing it."""
        assert self.client is not None
        while (pid := hold.reached()) is None:
            if self.client.poll() is not None:
                return hold.reached()
            time.sleep(0.01)
        return pid

    def settle_and_check(self) -> None:
        """The world comes to rest by itself once a server is there; then nothing is orphaned, doubled or stuck."""
        if self.client is not None:
            try:
                self.client.wait(SETTLE_S)
            except subprocess.TimeoutExpired:
                raise AssertionError(f"the client of {self.verb} is stuck; {self._state()}") from None
        self.world.run("api", "start")
        try:
            wait_until(self._requests_are_final, SETTLE_S, "every request final")
        except TimeoutError:
            raise AssertionError(f"stuck requests: {self._state()}") from None
        self._wait_no_orphans("after settling")
        self._no_job_ran_twice()
        self._is_one_or_the_other()
        self.world.run("down", "-y", "c1", check=None, timeout_s=60)
        self._wait_no_orphans("after down")
        assert scan.clusters_in_database(self.world) == set(), self._state()
        self.world.run("api", "stop")
        wait_until(lambda: not self.world.processes(), 15, f"no process left, found {self.world.processes()}")

    # -- looking ---------------------------------------------------------------------------------------------------
    def _task(self, name: str, run: str, cpus: int | None = None) -> Path:
        size = {"cpus": cpus, "memory": 1} if cpus else {}
        return self.world.task(name, run, envs={"WITNESS": str(self.witness)}, resources={"infra": "local", **size})

    def _starts(self) -> int:
        return len(self.witness.read_text().splitlines()) if self.witness.exists() else 0

    def _requests(self) -> list[dict[str, object]]:
        return json.loads(self.world.run("api", "status", "-a", "-o", "json").stdout)

    def _requests_are_final(self) -> bool:
        return all(request["status"] in FINAL for request in self._requests())

    def _wait_no_orphans(self, when: str) -> None:
        """A process that is just ending is no orphan: it gets 15 s."""
        deadline = time.monotonic() + 15
        while found := scan.orphans(self.world):
            if time.monotonic() > deadline:
                raise AssertionError(f"orphans {when}: {found}; {self._state()}")
            time.sleep(0.1)

    def _no_job_ran_twice(self) -> None:
        if not self.witness.exists():
            return
        started = collections.Counter(line.split()[1] for line in self.witness.read_text().splitlines())
        assert all(count == 1 for count in started.values()), f"jobs started more than once: {started}"

    def _is_one_or_the_other(self) -> None:
        """A rollback that was handed in has happened, whole: the machine is what the row says it is."""
        if self.verb != "rollback":
            return
        [cluster] = self.world.json("status")
        asked = [request for request in self._requests() if request["name"] == "sky.rollback"]
        done = any(
            request["status"] == "SUCCEEDED" and (request["return_value"] or {}).get("handle") for request in asked
        )
        [machine] = self.world.home.nodes.glob("*/machine.json")
        cpus = json.loads(machine.read_text())["cpus"]
        assert (cluster["status"], float(cluster["cpus"]), cpus) == ("UP", cpus, 1.0 if done else 2.0), self._state()

    def _state(self) -> str:
        return self.world.run("api", "status", "-a", "-o", "json", check=None).stdout[-3000:]

    def _pids(self, victim: str) -> list[int]:
        if victim == "client":
            return [self.client.pid] if self.client is not None and self.client.poll() is None else []
        if victim == "server":
            return [pid] if (pid := self.world.server_pid()) and os.path.exists(f"/proc/{pid}") else []
        if victim in ("worker", "engine"):
            return [p.pid for p in self.world.processes(victim)]
        return [pid for pid in AGENT_PIDS[victim](self.world) if os.path.exists(f"/proc/{pid}")]


def _recorded_pids(world: World, pattern: str) -> list[int]:
    pids = []
    for path in world.home.nodes.glob(pattern):
        try:
            pids.append(int(json.loads(path.read_text())["pid"]))
        except (OSError, ValueError, KeyError):
            continue  # half-written or just removed: there is no such process to kill yet
    return pids


def _zygotes(world: World) -> list[int]:
    """Supervisors are forks of the zygote and look like it; only the zygote is the agent's own child."""
    agents = set(_recorded_pids(world, "*/agent/agent.json"))
    return [p.pid for p in world.processes("agent") if "zygote" in p.argv and scan.parent(p.pid) in agents]


AGENT_PIDS: dict[str, Callable[[World], list[int]]] = {
    "agent": lambda world: _recorded_pids(world, "*/agent/agent.json"),
    "zygote": lambda world: _zygotes(world),
    "supervisor": lambda world: _recorded_pids(world, "*/agent/jobs/*/supervisor-*.json"),
}
