"""GPUs of a pretended ``nvidia-smi`` on PATH: leased to one cluster, shared by fractions, cordoned when they break."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from skyinfra.testing.world import World, wait_until

SMI = """#!/bin/sh
# Answers the two questions that are asked of it, from a file beside it: index, uuid, bus, errors by line.
[ -e "$(dirname "$0")/broken" ] && { echo "Unable to determine the device handle for GPU 0: GPU is lost"; exit 15; }
case "$1" in
  --query-gpu=uuid,index,name) while read -r i u b e; do echo "$u, $i, NVIDIA H100 80GB HBM3"; done ;;
  *) while read -r i u b e; do echo "$i, 00000000:$b:00.0, $e"; done ;;
esac < "$(dirname "$0")/gpus"
"""
TWO = "0 GPU-aaaa 3B 0\\n1 GPU-bbbb 5E 0\\n".replace("\\n", "\n")
SHOW = 'echo "sees=$CUDA_VISIBLE_DEVICES"'


@pytest.fixture
def world() -> Iterator[World]:
    root = Path(tempfile.mkdtemp(prefix="skyg-"))
    programs = root / "bin"
    programs.mkdir()
    for name, text in (("nvidia-smi", SMI), ("dmesg", '#!/bin/sh\ncat "$(dirname "$0")/kernel"\n')):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    (programs / "gpus").write_text(TWO)
    (programs / "kernel").write_text("")
    world = World(root, env={"PATH": f"{programs}:{os.environ['PATH']}", "SKYINFRA_MINUTE_S": "1"})
    try:
        yield world
    finally:
        world.close()
        shutil.rmtree(root, ignore_errors=True)


def gpu_task(world: World, name: str, count: object, run: str = SHOW) -> str:
    return str(world.task(name, run, resources={"infra": "local", "cpus": 1, "accelerators": f"H100:{count}"}))


def test_a_device_belongs_to_one_cluster_and_its_jobs_see_it(world: World) -> None:
    first = world.run("launch", "-y", "-c", "a", gpu_task(world, "a", 1)).stdout
    second = world.run("launch", "-y", "-c", "b", gpu_task(world, "b", 1)).stdout
    seen = {text.split("sees=")[1].split()[0] for text in (first, second)}
    assert seen == {"0", "1"}
    full = world.run("launch", "-y", "-c", "x", gpu_task(world, "x", 1), check=1)
    assert "0 of 2 are free" in full.stderr
    assert world.json("status", "a")[0]["accelerators"] == '{"H100": 1}'
    world.run("down", "-y", "a")
    third = world.run("launch", "-y", "-c", "x", gpu_task(world, "x", 1)).stdout
    assert third.split("sees=")[1].split()[0] == first.split("sees=")[1].split()[0]


def test_fractions_share_a_device_and_a_whole_one_waits_for_it(world: World) -> None:
    world.run("launch", "-y", "-d", "-c", "a", gpu_task(world, "hold", 1, "true"))
    until = f"while [ ! -e {world.witness}/go ]; do sleep 0.05; done"
    wait = f"touch {world.witness}/$SKYPILOT_INTERNAL_JOB_ID; {SHOW}; {until}"
    for number in (1, 2):
        world.run("exec", "-d", "a", gpu_task(world, f"half{number}", 0.5, wait))
    wait_until(lambda: (world.witness / "2").exists() and (world.witness / "3").exists(), 30, "both halves run at once")
    world.run("exec", "-d", "a", gpu_task(world, "whole", 1, SHOW))
    assert world.json("queue", "a")[0]["status"] == "PENDING"
    (world.witness / "go").touch()
    assert "sees=0" in world.run("logs", "a", "4").stdout
    assert [job["resources"] for job in world.json("queue", "a")][:2] == ["1x[H100:1]", "1x[H100:0.5]"]


def test_a_broken_device_is_cordoned_with_its_reason_and_takes_no_job(world: World) -> None:
    world.run("launch", "-y", "-c", "a", gpu_task(world, "a", 2))

    def health() -> dict[str, str]:
        return world.json("status", "a")[0]["node_health"].get("0", {})

    wait_until(lambda: health() == {"state": "READY", "reason": ""}, 30, "the node was looked at")
    kernel = "[1.0] NVRM: Xid (PCI:0000:5e:00): 79, pid=1, GPU has fallen off the bus.\n"
    (world.root / "bin" / "kernel").write_text(kernel)
    wait_until(lambda: health().get("state") == "CORDONED", 30, "the node is cordoned")
    line = world.run("status", "-v", "a").stdout
    assert "CORDONED(GPU 1: Xid 79, GPU has fallen off the bus)" in line
    assert "sees=0" in world.run("exec", "a", gpu_task(world, "one", 1)).stdout
    refused = world.run("exec", "a", gpu_task(world, "two", 2), check=1)
    assert "this node has 1 CPUs and 1 GPUs (CORDONED: GPU 1: Xid 79" in refused.stderr
    (world.root / "bin" / "kernel").write_text("")  # as after a reset
    wait_until(lambda: health()["state"] == "READY", 30, "the node is ready again")
    assert "sees=0,1" in world.run("exec", "a", gpu_task(world, "two", 2)).stdout
    (world.root / "bin" / "broken").touch()
    wait_until(lambda: "GPU is lost" in health().get("reason", ""), 30, "nvidia-smi's own words are shown")
