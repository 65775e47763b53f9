"""Files on their way to a node of the local cloud: one big, and many small; sent for the first time, and unchanged.

A figure is what a command takes longer for its files: `exec -d` with them, less `exec -d` without. Beside the first
ones stands `tar | tar` of the same tree on this disk, which hashes nothing and knows nothing of a second time.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.measure import Row, median_s, seconds_row, wall_s
from skyinfra.client.stat_cache import SETTLED_S
from skyinfra.testing.world import World

BIG_BYTES = 1_000_000_000
SMALL, SMALL_BYTES = 10_000, 10_000
SECOND_S = 0.5
FLOOR_SHARE = 0.6


def rows(world: World) -> Iterator[Row]:
    world.run("api", "start")
    world.run("launch", "-y", "-c", "files", str(world.task("empty", None, resources={"infra": "local", "cpus": 1})))
    try:
        yield from _of(world, "one file of 1 GB", _big)
        yield from _of(world, "10,000 files of 10 kB", _small)
    finally:
        world.run("down", "-y", "files")


def _of(world: World, what: str, make: Callable[[Path], None]) -> Iterator[Row]:
    source, copy = world.root / "source", world.root / "copy"
    make(source)
    time.sleep(SETTLED_S + 0.1)  # what has just changed is read again: that is not the case that is measured
    try:
        bare = median_s(lambda: _exec_s(world, None), 3)
        first = _exec_s(world, source) - bare
        copy.mkdir()
        floor = wall_s(["sh", "-c", f"tar -C {source} -cf - . | tar -C {copy} -xf -"], world.env)
        second = median_s(lambda: _exec_s(world, source), 3) - bare
        beside = f"tar | tar: {floor:.3f} s, {floor / first:.0%} of whose speed this is"
        yield Row(f"{what}: first sync", f"{FLOOR_SHARE:.0%} of scp", f"{first:.3f} s", beside)
        yield seconds_row(f"{what}: unchanged", SECOND_S, second, f"exec without files: {bare:.3f} s")
    finally:
        shutil.rmtree(source)
        shutil.rmtree(copy, ignore_errors=True)


def _exec_s(world: World, workdir: Path | None) -> float:
    extra = [] if workdir is None else ["--workdir", str(workdir)]
    begun = time.perf_counter()
    world.run("exec", "-d", *extra, "files", "true", timeout_s=300)
    return time.perf_counter() - begun


def _big(folder: Path) -> None:
    folder.mkdir()
    with (folder / "big").open("wb") as file:
        for _ in range(BIG_BYTES // 1_000_000):
            file.write(os.urandom(1_000_000))


def _small(folder: Path) -> None:
    for number in range(SMALL):
        path = folder / f"{number % 100:02}" / f"{number}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(SMALL_BYTES))
