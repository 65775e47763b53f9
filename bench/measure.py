"""How a figure is taken: medians over runs, proportional set size from smaps_rollup, one row per promise."""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

RUNS = 7


@dataclass(frozen=True)
class Row:
    """One promise: what was promised, what was measured, and what it is measured against."""

    promise: str
    limit: str
    measured: str
    beside: str = ""
    kept: bool | None = None


def seconds_row(promise: str, limit_s: float, taken_s: float, beside: str = "") -> Row:
    """A row for a duration that must not exceed `limit_s`."""
    return Row(promise, f"<= {limit_s:g} s", f"{taken_s:.3f} s", beside, taken_s <= limit_s)


def wall_s(argv: Sequence[str], env: dict[str, str], cwd: Path | None = None) -> float:
    """Wall time of one whole process; raises `CalledProcessError` when it fails."""
    begun = time.perf_counter()
    subprocess.run(argv, env=env, cwd=cwd, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    return time.perf_counter() - begun


def median_s(once: Callable[[], float], runs: int = RUNS) -> float:
    """Median of `runs` figures after one that does not count."""
    once()
    return statistics.median(once() for _ in range(runs))


def pss_mib(pids: Sequence[int]) -> float:
    """Proportional set size of some processes together, in MiB."""
    total_kib = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total_kib += int(line.split()[1])
    return total_kib / 1024


def print_table(rows: Sequence[Row]) -> None:
    """The table, as plain text."""
    cells = [("PROMISE", "LIMIT", "MEASURED", "KEPT", "BESIDE")]
    cells += [(r.promise, r.limit, r.measured, {True: "yes", False: "NO", None: "-"}[r.kept], r.beside) for r in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(5)]
    for row in cells:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip(), flush=True)
