"""How long the server's event loop keeps anybody waiting: `/health` each 5 ms while launches, reads and downs run.

Beside it the same poll of an asyncio server that does nothing, at the same time: what the machine's own scheduling
costs. A figure of one poll is an upper bound of the loop's stall.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from bench.measure import Row
from skyinfra.testing.world import World

LIMIT_MS = 50.0
CLUSTERS = 4

POLL = """
import asyncio, http.client, json, sys, threading, time

async def answer(reader, writer):
    while await reader.readuntil(b"\\r\\n\\r\\n"):
        writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\n{}")

def idle():
    async def serve():
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        ready.put(server.sockets[0].getsockname()[1])
        await server.serve_forever()
    asyncio.run(serve())

port = int(sys.argv[1])
if not port:
    import multiprocessing
    ready = multiprocessing.Queue()
    child = multiprocessing.Process(target=idle, daemon=True)
    child.start()
    port = ready.get()
connection = http.client.HTTPConnection("127.0.0.1", port)
ended = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
taken = []
while not ended.wait(0.005):
    began = time.perf_counter()
    connection.request("GET", "/health")
    connection.getresponse().read()
    taken.append(1000 * (time.perf_counter() - began))
taken.sort()
print(json.dumps({"polls": len(taken), "p99": taken[int(0.99 * len(taken))], "max": taken[-1]}))
"""


def rows(world: World) -> Iterator[Row]:
    """The longest wait and the 99th percentile, of the server and of one that idles."""
    task = str(world.task("loop", "seq 1 2000"))
    world.run("status")
    port = json.loads((world.home.root / "server.json").read_text())["port"]
    polls = [_poll(port), _poll(0)]
    try:
        names = [f"loop{n}" for n in range(CLUSTERS)]
        with ThreadPoolExecutor(CLUSTERS) as pool:
            list(pool.map(lambda name: world.run("launch", "-y", "-c", name, task), names))
            list(pool.map(lambda name: world.run("status", "-r", name), names))
            list(pool.map(lambda name: world.run("down", "-y", name), names))
    finally:
        ours, idle = (json.loads(poll.communicate(timeout=30)[0]) for poll in polls)
    beside = f"idle server: {idle['max']:.0f} ms, p99 {idle['p99']:.1f} ms; of {ours['polls']} polls"
    kept = ours["max"] <= LIMIT_MS
    yield Row(
        f"server's loop, {CLUSTERS} launches at once, longest",
        f"<= {LIMIT_MS:.0f} ms",
        f"{ours['max']:.0f} ms",
        beside,
        kept,
    )
    yield Row("server's loop, 99th percentile", "-", f"{ours['p99']:.1f} ms", "", None)


def _poll(port: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", POLL, str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
