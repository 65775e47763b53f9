"""What exists for a state folder against the rows that own it: `{kind, id, owner, note}`, owner None = nobody's.

Blocking: it reads `/proc` and folders, so it runs in a thread. Changes nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from skyinfra.model.home import Home
from skyinfra.runtime.identity import Identity
from skyinfra.server.processes import belonging_to

__all__ = ["examine"]

Entry = dict[str, Any]


def examine(home: Home, clusters: list[Any], running: list[Any], lanes: dict[Any, list[str]]) -> list[Entry]:
    """`clusters` and `running` (operations without an outcome) are rows; `lanes` as `Lanes.held` gives them."""
    by_stack = {row.stack: f"cluster:{row.name}" for row in clusters}
    operations = {row.id: f"operation:{row.id}" for row in running}
    return [
        *_processes(home, by_stack, operations),
        *_folders(home, by_stack),
        *_stacks(home, by_stack),
        *_locks(home, by_stack),
        *_sockets(home, clusters),
        *_leases(running, lanes),
    ]


def _entry(kind: str, name: str, owner: str | None, note: str = "") -> Entry:
    return {"kind": kind, "id": name, "owner": owner, "note": note}


def _processes(home: Home, by_stack: dict[str, str], operations: dict[str, str]) -> Iterator[Entry]:
    workers = _workers(home)
    own = os.getpid()
    for identity, command, env in belonging_to(home.root):
        owner = None
        if identity.pid == own or _parent(identity.pid) == own:
            owner = "server"
        elif "SKYINFRA_AGENT_STATE" in env:
            owner = _owner_of_machine(Path(env["SKYINFRA_AGENT_STATE"]).parent.name, by_stack)
        else:
            operation = workers.get(_session(identity.pid))
            owner = operations.get(operation or "")
        yield _entry("process", str(identity.pid), owner, command[:200])


def _workers(home: Home) -> dict[int | None, str]:
    """Operation ids by the session of their living workers."""
    found: dict[int | None, str] = {}
    for path in home.operations.glob("*/worker.json"):
        try:
            record = json.loads(path.read_text())
            identity = Identity(record["pid"], record["start_ticks"], record["boot_id"])
        except (OSError, ValueError, KeyError):
            continue  # torn by a crash: its process, if there is one, is shown without an owner
        if identity.alive:
            found[_session(identity.pid)] = path.parent.name
    return found


def _parent(pid: int) -> int | None:
    return _stat_field(pid, 1)


def _session(pid: int) -> int | None:
    return _stat_field(pid, 3)


def _stat_field(pid: int, index: int) -> int | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return int(text[text.rindex(")") + 2 :].split()[index])


def _owner_of_machine(machine_id: str, by_stack: dict[str, str]) -> str | None:
    """A machine is called `<stack>-<slot>-<incarnation>`."""
    return by_stack.get(machine_id.rsplit("-", 2)[0])


def _folders(home: Home, by_stack: dict[str, str]) -> Iterator[Entry]:
    if home.nodes.is_dir():
        for path in sorted(home.nodes.iterdir()):
            yield _entry("node", path.name, _owner_of_machine(path.name, by_stack))


def _stacks(home: Home, by_stack: dict[str, str]) -> Iterator[Entry]:
    for path in sorted((home.backend / ".pulumi" / "stacks").glob("*/*.json")):
        yield _entry("stack", path.stem, by_stack.get(path.stem))


def _locks(home: Home, by_stack: dict[str, str]) -> Iterator[Entry]:
    for path in sorted((home.backend / ".pulumi" / "locks").rglob("*.json")):
        yield _entry("lock", path.stem, by_stack.get(path.parent.name), f"of stack {path.parent.name}")
    if home.locks.is_dir():
        for path in sorted(home.locks.iterdir()):
            try:
                text = path.read_text().strip()
            except OSError:
                text = ""
            owner = next((o for stack, o in by_stack.items() if stack in text), None)
            yield _entry("lease", path.name, owner, text[:200])


def _sockets(home: Home, clusters: list[Any]) -> Iterator[Entry]:
    known: dict[str, str] = {}
    for row in clusters:
        for node in row.nodes or []:
            known[home.node_socket(node["id"]).name] = f"cluster:{row.name}"
    folder = home.sockets()
    if folder.is_dir():
        for path in sorted(folder.glob("*.sock")):
            yield _entry("socket", path.name, known.get(path.name), str(path))


def _leases(running: list[Any], lanes: dict[Any, list[str]]) -> Iterator[Entry]:
    for row in running:
        yield _entry("operation", row.id, f"request:{row.request_id}", f"{row.kind} of {row.stack}, fence {row.fence}")
    for (workspace, name), ids in lanes.items():
        yield _entry("lane", f"{workspace}/{name}", f"request:{ids[0]}", f"{len(ids) - 1} waiting")
