"""A large database: 1,500 clusters and 220,000 finished requests. What `status` takes, and the server's memory."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from typing import Any

from bench.measure import Row, median_s, pss_mib, seconds_row, wall_s
from skyinfra.model.spec import ClusterSpec, Slot
from skyinfra.server.requests.retention import FIRST_AFTER_S
from skyinfra.store import tables
from skyinfra.store.database import open_engine
from skyinfra.store.schema import ensure_schema
from skyinfra.testing.world import World, wait_until

CLUSTERS = 1500
REQUESTS = 220_000
BATCH = 5000
MEMORY_MIB = 200


def rows(world: World) -> Iterator[Row]:
    """Figures of a server on that database."""
    world.run("api", "stop")
    wait_until(lambda: not world.processes("server"), 15, "the server ended")
    fill(f"sqlite:///{world.home.database}")
    world.run("api", "start")
    beside = f"{CLUSTERS:,} clusters, {REQUESTS:,} finished requests"
    cli = [sys.executable, "-m", "skyinfra.cli.main"]

    def command(*args: str) -> float:
        return wall_s([*cli, *args], world.env, world.root)

    first = command("status", "-u")
    yield seconds_row("status of everything, the first time", 1.0, first, beside)
    yield seconds_row("status of everything", 1.0, median_s(lambda: command("status", "-u")), beside)
    yield seconds_row("status of one", 1.0, median_s(lambda: command("status", "-u", "c7")), beside)
    yield seconds_row("api status -a", 1.0, median_s(lambda: command("api", "status", "-a")), beside)
    time.sleep(FIRST_AFTER_S + 5)  # the first housekeeping looks at every finished request
    (server,) = world.processes("server")
    mib = pss_mib([server.pid])
    yield Row("server on that database", f"<= {MEMORY_MIB} MiB PSS", f"{mib:.0f} MiB", beside, mib <= MEMORY_MIB)
    world.run("api", "stop")
    wait_until(lambda: not world.processes("server"), 15, "the server ended")
    for path in world.home.root.glob("skyinfra.db*"):
        path.unlink()  # the measurements after this one want their own


def fill(url: str) -> None:
    """Write the rows straight into the database; no server may run on it."""
    engine = open_engine(url, writer=True)
    ensure_schema(engine)
    now = time.time()
    with engine.begin() as db:
        for start in range(0, REQUESTS, BATCH):
            db.execute(tables.requests.insert(), [_request(n, now) for n in range(start, min(start + BATCH, REQUESTS))])
        db.execute(tables.clusters.insert(), [_cluster(n, now) for n in range(CLUSTERS)])
        db.execute(
            tables.cluster_events.insert(),
            [
                {
                    "cluster_id": f"{n % CLUSTERS:016x}",
                    "cluster_name": f"c{n % CLUSTERS}",
                    "at": now,
                    "kind": "up",
                    "text": "up",
                }
                for n in range(20 * CLUSTERS)
            ],
        )
    engine.dispose()


def _request(n: int, now: float) -> dict[str, Any]:
    identity = f"{n:08x}-0000-4000-8000-{n:012x}"
    return {
        "id": identity,
        "idempotency_key": identity,
        "body_digest": "0" * 64,
        "verb": "exec",
        "status": "SUCCEEDED",
        "workspace": "default",
        "user_id": f"{n % 40:08x}",
        "user_name": f"user{n % 40}",
        "cluster_name": f"c{n % CLUSTERS}",
        "internal": False,
        "entrypoint": "skyinfra exec",
        "sealed_body": None,
        "display": {"cluster_name": f"c{n % CLUSTERS}", "task": {"run": "python train.py --epochs 10"}},
        "blobs": [],
        "created_at": now - 86400 + n * 0.3,
        "finished_at": now - 86400 + n * 0.3 + 2,
        "cancel_requested": False,
        "parked_until": None,
        "status_msg": "",
        "result": {"job_id": n, "handle": None},
        "error": None,
    }


def _cluster(n: int, now: float) -> dict[str, Any]:
    """Stopped ones and, every third, one that is up but has no node to be watched."""
    slot = Slot(slot=0, instance_type="local", cpus=4, memory_gb=16, gpus=None, disk_gb=256, spot=False)
    spec = ClusterSpec(
        server="bench",
        workspace="default",
        user=f"user{n % 40}",
        name=f"c{n}",
        stack=f"c{n}-{n:06x}",
        cloud="local",
        region="local",
        slots=(slot,),
        agent_version="0",
        ports=(),
        labels={},
    )
    return {
        "id": f"{n:016x}",
        "workspace": "default",
        "name": f"c{n}",
        "user_id": f"{n % 40:08x}",
        "user_name": f"user{n % 40}",
        "stack": f"c{n}-{n:06x}",
        "status": "UP" if n % 3 == 0 else "STOPPED",
        "status_updated_at": now,
        "init_kind": None,
        "status_reason": "",
        "generation": 1,
        "spec": json.loads(json.dumps(spec.to_json())),
        "nodes": [],
        "resources": {"infra": "local", "cpus": "4", "memory": "16", "disk_size": 256},
        "launched_at": now - n,
        "last_use": "skyinfra exec",
        "ever_up": True,
        "autostop": -1,
        "to_down": False,
        "config_hash": "0" * 64,
        "creation_yaml": "name: train\nresources:\n  infra: local\nrun: python train.py --epochs 10\n",
        "creation_command": "skyinfra launch train.yaml",
        "cordoned": None,
        "revivals": [],
        "events_seq": 0,
        "created_at": now - n,
        "node_health": None,
    }
