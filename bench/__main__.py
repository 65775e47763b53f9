"""`python -m bench [NAME…]`: run the measurements, one table at the end; without names, all of `PARTS`."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
import tempfile
from pathlib import Path

from bench.measure import Row, print_table
from skyinfra.stacks import engine
from skyinfra.testing.world import World

PARTS = (
    "command_line",
    "life",
    "stop_start",
    "files",
    "gang",
    "history",
    "sdk_status",
    "loop_stall",
    "children",
    "objects",
    "catalog",
    "scale",
    "ssh_channel",
)


def main(names: list[str]) -> int:
    if unknown := set(names) - set(PARTS):
        print(
            f"error: no measurement named {', '.join(sorted(unknown))}; there are: {', '.join(PARTS)}", file=sys.stderr
        )
        return 2
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # without .pyc files every import would be measured twice
    if (found := engine.find_engine(os.environ)) is not None:
        os.environ["SKYINFRA_PULUMI"] = str(found)
    root = Path(tempfile.mkdtemp(prefix="skyb-"))
    world = World(root)
    rows: list[Row] = []
    try:
        for name in names or PARTS:
            print(f"measuring: {name}", file=sys.stderr, flush=True)
            rows += importlib.import_module(f"bench.{name}").rows(world)
    finally:
        world.close()
        shutil.rmtree(root, ignore_errors=True)
    print_table(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
