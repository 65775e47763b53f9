"""Offers and the optimizer: warm and cold, and the query layer over 100,000 rows, beside a scan of the same rows."""

from __future__ import annotations

import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence

from bench.measure import RUNS, Row, median_s
from skyinfra.catalog.ask import Ask, Bound
from skyinfra.catalog.catalog import Catalog
from skyinfra.catalog.offers import Offer
from skyinfra.catalog.optimizer import plan_dag
from skyinfra.catalog.table import Table
from skyinfra.model.dag import Dag
from skyinfra.model.resources import Resources
from skyinfra.model.task import Task
from skyinfra.testing.world import World

ROWS = 100_000
SIX_GPUS = ("A100", "H100", "H200", "A100-80GB", "V100", "L4")
ASKS = (
    Ask(accelerator="A100", count=8),
    Ask(accelerator="A100", count=8, spot=True),
    Ask(accelerator="T4", count=1, cpus=Bound(16, True), region="r7"),
    Ask(accelerator_memory=Bound(80, True), count=8),
    Ask(cpus=Bound(8, True), memory=Bound(4, True, True), region="r3"),
    Ask(cpus=Bound(8), memory=Bound(32)),
    Ask(cpus=Bound(8, True)),
    Ask(cpus=Bound(8, True), spot=True),
    Ask(instance_type="m200.large"),
)
_COLD = """
import time
begun = time.perf_counter()
from skyinfra.catalog.optimizer import plan_dag
from skyinfra.model.dag import Dag
from skyinfra.model.resources import Resources
from skyinfra.model.task import Task
task = Task(run="true")
task.set_resources(Resources(accelerators="A100:8"))
dag = Dag()
dag.add(task)
plan_dag(dag)
print(time.perf_counter() - begun)
"""


def rows(world: World) -> Iterator[Row]:
    """Figures of the catalog. Only the cold one needs another process."""
    catalog = Catalog.load()
    shipped = [offer for cloud in catalog.clouds for offer in catalog.everything(cloud)]
    one = _dag([Resources(accelerators="A100:8")])
    taken = median_s(lambda: _timed(lambda: plan_dag(one, offers=catalog)))
    scan = median_s(lambda: _timed(lambda: _scan(shipped, ASKS[0])))
    yield _row("optimizer, A100:8, all clouds, warm", 0.010, taken, _beside(scan, "0.864 s"))
    cold = statistics.median(_cold_s(world) for _ in range(RUNS))
    yield _row("optimizer, A100:8, cold, with imports and catalog", 0.060, cold, "SkyPilot 0.14.1: 1.37 s")
    six = _dag([Resources(accelerators=f"{name}:8") for name in SIX_GPUS])
    taken = median_s(lambda: _timed(lambda: plan_dag(six, offers=catalog)))
    yield _row("optimizer, any_of six GPU types", 0.025, taken, "SkyPilot 0.14.1: 3.9 s")
    yield _query_row()


def _query_row() -> Row:
    """The slowest of some questions over 100,000 rows, answered and the first 20 offers looked at."""
    offers = _many_offers()
    big = Catalog({"aws": Table.build("aws", offers)})
    slowest_s, ask = max(
        ((median_s(lambda ask=ask: _timed(lambda: big.matches(ask, "aws")[:20])), ask) for ask in ASKS),
        key=lambda pair: pair[0],
    )
    scan = median_s(lambda: _timed(lambda: _scan(offers, ask)), 3)
    return _row(f"which offers fit, {ROWS:,} rows (slowest: {ask.what})", 0.010, slowest_s, _beside(scan))


def _many_offers() -> list[Offer]:
    """A catalog as large as all clouds in all regions, seeded: 2,000 machine types in 50 regions."""
    chance = random.Random(7)
    kinds: Sequence[tuple[str | None, float | None]] = (
        (None, None),
        (None, None),
        ("A100", 40),
        ("A100-80GB", 80),
        ("H100", 80),
        ("T4", 16),
    )
    offers = []
    for number in range(ROWS // 50):
        (gpu, gib), cpus = chance.choice(kinds), chance.choice((2, 4, 8, 16, 32, 64, 96))
        count = chance.choice((1, 2, 4, 8)) if gpu else 0
        base = cpus * 0.05 + count * 2
        for region in range(50):
            price = round(base * chance.uniform(0.9, 1.4), 4)
            spot = round(price * chance.uniform(0.2, 0.6), 4) if chance.random() < 0.8 else None
            name, memory = f"m{number}.large", cpus * 4
            offers.append(
                Offer("aws", name, cpus, memory, gpu, count, gib, f"r{region}", (f"r{region}-a",), price, spot)
            )
    return offers


def _scan(offers: Sequence[Offer], ask: Ask) -> list[Offer]:
    """The floor: every row looked at, what fits sorted by price."""
    fitting = [
        o
        for o in offers
        if (ask.accelerator is None or (o.accelerator == ask.accelerator and o.accelerator_count == ask.count))
        and (ask.wants_accelerator or ask.instance_type is not None or o.accelerator is None)
        and (ask.instance_type is None or o.instance_type == ask.instance_type)
        and (ask.region is None or o.region == ask.region)
        and (ask.cpus is None or ask.cpus.allows(o.vcpus))
        and (ask.memory is None or ask.memory.allows(o.memory_gib, o.vcpus))
        and (ask.accelerator_memory is None or (o.accelerator_memory_gib or 0) >= ask.accelerator_memory.value)
    ]
    return sorted(fitting, key=lambda o: float("inf") if (price := o.hourly(ask.spot)) is None else price)


def _row(promise: str, limit_s: float, taken_s: float, beside: str) -> Row:
    """These figures are too small for seconds."""
    return Row(promise, f"<= {limit_s * 1000:g} ms", f"{taken_s * 1000:.2f} ms", beside, taken_s <= limit_s)


def _dag(alternatives: list[Resources]) -> Dag:
    task = Task(run="true")
    task.set_resources(set(alternatives))
    dag = Dag()
    dag.add(task)
    return dag


def _timed(call: Callable[[], object]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def _cold_s(world: World) -> float:
    """As the child measures it, so that Python's own start is no part of it."""
    env = {name: value for name, value in world.env.items() if name != "PYTHONDONTWRITEBYTECODE"}
    child = subprocess.run([sys.executable, "-c", _COLD], env=env, check=True, capture_output=True, text=True)
    return float(child.stdout)


def _beside(scan_s: float, skypilot: str | None = None) -> str:
    floor = f"scan of the rows: {scan_s * 1000:.2f} ms"
    return floor if skypilot is None else f"{floor}; SkyPilot 0.14.1: {skypilot}"
