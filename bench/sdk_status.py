"""One SDK process, 100 threads, `status` of 10 clusters: calls per second and resident memory. Run in a child."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

from bench.measure import Row
from skyinfra.testing.world import World

CLUSTERS = 10

CHILD = """
import json, threading, time
import skyinfra as sky

def rss():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 2**20

def call(n):
    for _ in range(n):
        assert len(sky.get(sky.status())) == 10

def run(threads, each):
    pool = [threading.Thread(target=call, args=(each,)) for _ in range(threads)]
    begun = time.perf_counter()
    [t.start() for t in pool]; [t.join() for t in pool]
    return threads * each / (time.perf_counter() - begun)

run(100, 10); first = rss()
rate = run(100, 90)
print(json.dumps({"rate": rate, "grown": rss() - first}))
"""


def rows(world: World) -> Iterator[Row]:
    """Figures of the SDK under threads."""
    task = str(world.task("nothing", "true"))
    for n in range(CLUSTERS - len(world.json("status"))):
        world.run("launch", "-y", "-d", "-c", f"s{n}", task)
    done = subprocess.run([sys.executable, "-c", CHILD], env=world.env, capture_output=True, text=True, check=True)
    figures = json.loads(done.stdout)
    yield Row(
        "status calls of 100 threads, 10 clusters", ">= 300 /s", f"{figures['rate']:.0f} /s", "", figures["rate"] >= 300
    )
    grown = figures["grown"]
    yield Row("RSS after 10,000 calls over 1,000", "<= 5 MB", f"{grown:.1f} MiB", "", grown <= 4.8)
