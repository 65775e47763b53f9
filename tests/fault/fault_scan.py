"""The campaign's own look at the machine: what exists, and which record names it. It asks no code of the product."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from skyinfra.testing.world import World


def clusters_in_database(world: World) -> set[str]:
    """The stack names of all cluster rows."""
    if (url := world.env.get("SKYINFRA_DB_URL")) is not None:
        import psycopg

        with psycopg.connect(url) as other:
            return {row[0] for row in other.execute("SELECT stack FROM clusters")}
    connection = sqlite3.connect(f"file:{world.home.database}?mode=ro", uri=True)
    try:
        return {row[0] for row in connection.execute("SELECT stack FROM clusters")}
    finally:
        connection.close()


def orphans(world: World) -> list[str]:
    """Everything of this state folder that no record names; empty = nothing leaked."""
    stacks = clusters_in_database(world)
    return [
        *_orphan_processes(world, stacks),
        *_orphan_node_folders(world, stacks),
        *_orphan_stacks(world, stacks),
        *_orphan_locks(world),
        *_orphan_sockets(world, stacks),
    ]


def _node_of(stacks: set[str], machine_id: str) -> bool:
    return any(machine_id.startswith(stack + "-") for stack in stacks)


def _orphan_processes(world: World, stacks: set[str]) -> Iterator[str]:
    server = world.server_pid()
    for process in world.processes():
        if process.pid == server:
            continue
        if process.role == "worker" and parent(process.pid) == server:
            continue  # the spare, or one at work for the server
        if state := process.env.get("SKYINFRA_AGENT_STATE"):
            machine = Path(state).parent
            if machine.parent == world.home.nodes and _node_of(stacks, machine.name):
                continue
        yield f"process {process.pid} ({process.role}): {' '.join(process.argv)[:200]}"


def _orphan_node_folders(world: World, stacks: set[str]) -> Iterator[str]:
    if world.home.nodes.is_dir():
        for folder in world.home.nodes.iterdir():
            if not _node_of(stacks, folder.name):
                yield f"node folder {folder.name}"


def _orphan_stacks(world: World, stacks: set[str]) -> Iterator[str]:
    for file in (world.home.backend / ".pulumi" / "stacks").rglob("*.json"):
        if file.stem not in stacks:
            yield f"stack file {file.name}"


def _orphan_locks(world: World) -> Iterator[str]:
    """A lock of the backend whose owner no longer lives."""
    for file in (world.home.backend / ".pulumi" / "locks").rglob("*.json"):
        pid = json.loads(file.read_text()).get("pid")
        if not os.path.exists(f"/proc/{pid}"):
            yield f"lock {file} of dead pid {pid}"


def _orphan_sockets(world: World, stacks: set[str]) -> Iterator[str]:
    folder = world.home.sockets(world.env)
    if not folder.is_dir():
        return
    known = {
        world.home.node_socket(node.name, world.env)
        for node in world.home.nodes.iterdir()
        if _node_of(stacks, node.name)
    }
    for socket in folder.iterdir():
        if socket.suffix == ".sock" and socket not in known:
            yield f"socket {socket.name}"


def parent(pid: int) -> int | None:
    """The parent of a process, or None when it is gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return None
