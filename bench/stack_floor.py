"""What the engine itself costs, beside what our operations cost: ``python bench/stack_floor.py [-n 7] [-o json]``.

Floor: the stock automation API's ``Stack.up`` over an empty inline program, new (after its ``stack init``) and again.
Ours: whole operations through the launcher with a warm spare, on a temporary state folder, with a real machine and
agent; ``up_new`` includes ``stack init``. ``cold_worker`` is a recover without a spare. Medians; nothing is asserted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from skyinfra.model.home import Home
from skyinfra.model.spec import ClusterSpec, Slot, stack_name
from skyinfra.runtime import package
from skyinfra.stacks.engine import find_engine
from skyinfra.stacks.launcher import Launcher
from skyinfra.stacks.operation import OperationRequest
from skyinfra.stacks.workspace import engine_env, prepare_home

SPARE_READY_S = 1.0

STOCK = """
import sys, time
from pulumi import automation as auto
root, engine = sys.argv[1:3]
options = auto.LocalWorkspaceOptions(
    project_settings=auto.ProjectSettings("floor", runtime="python"),
    pulumi_command=auto.PulumiCommand(engine, skip_version_check=True),
)
stack = auto.create_stack("floor-%s" % time.time_ns(), "floor", lambda: None, opts=options)
began = time.perf_counter(); stack.up(); print(time.perf_counter() - began)
began = time.perf_counter(); stack.up(); print(time.perf_counter() - began)
"""


def pss_mib(pid: int) -> float:
    """Proportional share of the memory of a process."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise ValueError(f"no Pss of {pid}")


def stock(home: Home, engine: Path) -> dict[str, float]:
    """The stock ``Stack.up``, which starts four CLI processes."""
    argv = [sys.executable, "-c", STOCK, str(home.root), str(engine.parent.parent)]
    said = subprocess.run(argv, env=engine_env(home), check=True, capture_output=True, text=True).stdout.split()
    return {"stock_up_new": float(said[0]), "stock_up_again": float(said[1])}


async def ours(home: Home, spec: ClusterSpec, turn: int) -> dict[str, float]:
    """A cluster from nothing to nothing."""
    launcher = Launcher(home)
    spans: dict[str, float] = {}

    async def timed(name: str, kind: str, wanted: ClusterSpec | None) -> None:
        await launcher.start()
        await asyncio.sleep(SPARE_READY_S)  # the spare is warm when a user comes; its start is measured below
        request = OperationRequest(f"{name}-{turn}", kind, spec.stack, wanted)  # type: ignore[arg-type]
        began = time.perf_counter()
        result = await launcher.run(request, {"agent_token": "t"}, lambda _: None)
        spans[name] = time.perf_counter() - began
        if result.outcome != "succeeded":
            raise SystemExit(f"{name}: {result.message}\n{result.detail}")

    await timed("up_new", "up", spec)
    await timed("up_same", "up", spec)
    await timed("up_generation", "up", spec.with_slot(0, agent_generation=1))
    await timed("destroy", "destroy", None)
    await launcher.start()
    await asyncio.sleep(SPARE_READY_S)
    spare = launcher._spare
    assert spare is not None, "it was just started"
    spans["spare_pss_mib"] = pss_mib(spare.pid)
    await launcher.stop()
    cold = Launcher(home, spare=False)
    began = time.perf_counter()
    await cold.run(OperationRequest(f"cold-{turn}", "recover", spec.stack, None), {}, lambda _: None)
    spans["cold_worker"] = time.perf_counter() - began
    await cold.stop()
    return spans


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("-n", type=int, default=7)
    parser.add_argument("-o", choices=("text", "json"), default="text")
    options = parser.parse_args()
    engine = find_engine()
    if engine is None:
        raise SystemExit("no engine: python -m skyinfra.stacks.engine install")
    root = Path(tempfile.mkdtemp(prefix="skyb-"))
    try:
        home = Home(root)
        os.environ["SKYINFRA_HOME"] = str(root)
        prepare_home(home)
        stack = stack_name("bench", "default", "b")
        spec = ClusterSpec(
            "bench", "default", "me", "b", stack, "local", (Slot(0),), agent_version=package.agent_version()
        )
        turns = [{**stock(home, engine), **asyncio.run(ours(home, spec, turn))} for turn in range(options.n)]
    finally:
        shutil.rmtree(root, ignore_errors=True)
    medians = {name: round(statistics.median(turn[name] for turn in turns), 3) for name in turns[0]}
    if options.o == "json":
        print(json.dumps(medians))
    else:
        for name, value in medians.items():
            print(f"{name:16} {value:8.3f} {'MiB' if name.endswith('mib') else 's'}")


if __name__ == "__main__":
    main()
