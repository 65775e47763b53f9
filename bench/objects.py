"""Task files and the accelerator listing: parsing in one process, `gpus list` as a whole one."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import yaml

from bench.measure import Row, median_s, seconds_row, wall_s
from skyinfra.model.dag import Dag
from skyinfra.testing.world import World

CONFORMANCE = Path(__file__).parents[2] / "shared" / "conformance"
TYPICAL = """\
name: train
workdir: .
num_nodes: 2
resources:
  infra: gcp/us-central1
  accelerators: {A100: 8, H100: 8}
  cpus: 32+
  memory: 128+
  disk_size: 512
  use_spot: true
  ports: [8080, 9000-9010]
  autostop: {idle_minutes: 10, down: true}
  labels: {team: research, project: llm}
envs:
  MODEL: llama
  EPOCHS: 3
  BUCKET: my-bucket
secrets:
  HF_TOKEN: xxx
file_mounts:
  /data: s3://${BUCKET}/data
  /out: {name: my-bucket-out, store: s3, mode: MOUNT}
setup: |
  pip install -r requirements.txt
  python prepare.py --model $MODEL
run: |
  torchrun --nproc_per_node $SKYPILOT_NUM_GPUS_PER_NODE train.py --epochs $EPOCHS
"""


def rows(world: World) -> Iterator[Row]:
    """Figures of the object API. The conformance set is measured where it lies beside the checkout."""
    taken = median_s(lambda: _parse_s(TYPICAL, 50))
    floor = median_s(lambda: _yaml_s(TYPICAL, 50))
    beside = f"PyYAML's C loader alone: {floor * 1000:.2f} ms"
    yield Row("parse of a typical task", "<= 2 ms", f"{taken * 1000:.2f} ms", beside, taken <= 0.002)
    texts = _conformance_texts()
    if texts:
        taken = median_s(lambda: sum(_parse_s(text, 1) for text in texts), 3)
        yield seconds_row(f"parse of the conformance set ({len(texts)} files)", 1.0, taken)
    start = median_s(lambda: wall_s([sys.executable, "-c", "pass"], world.env))
    beside = f"python -c pass: {start:.3f} s; SkyPilot 0.14.1: 2.15 s"
    cli = [sys.executable, "-m", "skyinfra.cli.main", "gpus", "list"]
    taken = median_s(lambda: wall_s(cli, world.env))
    yield seconds_row("gpus list", 0.3, taken, beside)
    taken = median_s(lambda: wall_s([*cli, "A100:8"], world.env))
    yield seconds_row("gpus list A100:8", 0.3, taken, beside)


def _parse_s(text: str, times: int) -> float:
    """Seconds of one parse; what is refused was read as well."""
    begun = time.perf_counter()
    for _ in range(times):
        try:
            Dag.from_yaml_str(text)
        except (ValueError, AssertionError):
            pass  # some files of the set are templates, or there to be refused
    return (time.perf_counter() - begun) / times


def _yaml_s(text: str, times: int) -> float:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    begun = time.perf_counter()
    for _ in range(times):
        yaml.load(text, Loader=loader)
    return (time.perf_counter() - begun) / times


def _conformance_texts() -> list[str]:
    """The files that the expectations speak of; none where the set is not there."""
    expected = CONFORMANCE / "expected.json"
    if not expected.exists():
        return []
    return [(CONFORMANCE / "yaml" / name).read_text() for name in json.loads(expected.read_text())["files"]]
