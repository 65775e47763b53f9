"""Plans and history as a user waits for them, and eight launches at once beside the engine's own floor for eight."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.measure import Row, median_s, seconds_row, wall_s
from skyinfra.model.home import Home
from skyinfra.stacks import engine
from skyinfra.stacks.workspace import engine_env, prepare_home
from skyinfra.testing.world import World, wait_until

AT_ONCE = 8
UPDATES = 6

#: What eight stacks cost the engine alone: `stack init` and an `up` without resources, the CLI by itself.
FLOOR = """
import subprocess, sys, threading
from pathlib import Path
from pulumi.automation._server import LanguageServer
from pulumi.runtime.proto import language_pb2_grpc
from concurrent import futures
import grpc
engine, folder, name = sys.argv[1:4]
server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
language_pb2_grpc.add_LanguageRuntimeServicer_to_server(LanguageServer(lambda: None), server)
port = server.add_insecure_port("127.0.0.1:0"); server.start()
Path(folder).mkdir(); Path(folder, "Pulumi.yaml").write_text("name: floor\\nruntime: python\\n")
print("ready", flush=True); sys.stdin.readline()
run = lambda *words: subprocess.run([engine, *words, "--non-interactive"], cwd=folder, check=True, capture_output=True)
run("stack", "init", name, "--secrets-provider", "passphrase")
run("up", "--yes", "--skip-preview", "--stack", name, f"--client=127.0.0.1:{port}", "--exec-kind", "auto.inline")
"""


def rows(world: World) -> Iterator[Row]:
    """Figures of plans and history, then of many launches at once."""
    cli = [sys.executable, "-m", "skyinfra.cli.main"]
    task = str(world.task("hi", "echo hi", resources={"infra": "local", "cpus": 1, "memory": 1}))

    def command(*args: str) -> float:
        return wall_s([*cli, *args], world.env, world.root)

    command("launch", "-y", "-c", "planned", task)

    def dryrun() -> float:
        wait_until(lambda: world.processes("worker"), 15, "a spare worker waits")
        time.sleep(1)  # the spare has imported what it imports; there is no event for "idle"
        return command("launch", "-y", "--dryrun", "-c", "planned", task)

    yield seconds_row("dryrun of an existing cluster", 0.8, median_s(dryrun))
    for turn in range(UPDATES):
        size = str(world.task("size", "true", resources={"infra": "local", "cpus": 1 + turn % 2, "memory": 1}))
        command("launch", "-y", "--resize", "-c", "planned", size)
    yield seconds_row("history", 0.3, median_s(lambda: command("history", "planned")))
    command("down", "-y", "planned")
    yield _at_once(world, cli, task)


def _at_once(world: World, cli: list[str], task: str) -> Row:
    def launches(turn: int) -> float:
        begun = time.perf_counter()
        clients = [world.popen("launch", "-y", "-d", "-c", f"many{turn}{n}", task) for n in range(AT_ONCE)]
        for client in clients:
            client.communicate(timeout=120)
        taken = time.perf_counter() - begun
        if any(client.returncode for client in clients):
            raise SystemExit("a launch failed")
        wall_s([*cli, "down", "-y", "-a"], world.env, world.root)
        return taken

    launches(0)
    taken, floor = min(launches(1), launches(2)), min(_floor(), _floor())
    beside = f"the engine alone, {AT_ONCE} stacks: {floor:.2f} s"
    return Row(
        f"{AT_ONCE} launches at once", f"<= {1.5 * floor:.2f} s (1.5x)", f"{taken:.2f} s", beside, taken <= 1.5 * floor
    )


def _floor() -> float:
    """Eight `stack init` and empty `up` at once, their Python ready beforehand."""
    found = engine.find_engine(os.environ)
    assert found is not None, "the launches before have made sure of it"
    with tempfile.TemporaryDirectory(prefix="skyb-") as root:
        home = Home(Path(root))
        prepare_home(home)
        env = engine_env(home, {k: v for k, v in os.environ.items() if k != "SKYINFRA_BACKEND_URL"})
        argv = [sys.executable, "-c", FLOOR, str(found)]
        runs = [
            subprocess.Popen(
                [*argv, f"{root}/p{n}", f"s{n}"], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            for n in range(AT_ONCE)
        ]
        for run in runs:
            assert run.stdout is not None, "opened as a pipe"
            run.stdout.readline()
        begun = time.perf_counter()
        for run in runs:
            assert run.stdin is not None, "opened as a pipe"
            run.stdin.write("\n")
            run.stdin.flush()
        for run in runs:
            if run.wait(120):
                raise SystemExit("the engine's floor could not be taken")
        return time.perf_counter() - begun
