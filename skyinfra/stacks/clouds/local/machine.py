"""A machine of the local cloud: a folder under ``nodes/`` with a record, a HOME and the agent's state.

::

    nodes/<cluster>-<slot>-<incarnation>/   0700
        machine.json    the record: tags, id, address, size, power; written before anything else
        home/           the node's HOME
        agent/          the agent's state folder (token, agent.pyz, agent.json, agent.log, ledger, jobs, poweroff.json)

Every act is idempotent and leaves, wherever it is killed, something that `observe` still attributes to its cluster.
Refuses to touch a folder whose name is not the id it was given.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from skyinfra.model.home import Home
from skyinfra.runtime.boundary import boundary
from skyinfra.stacks import processes
from skyinfra.stacks.clouds.failures import CloudError
from skyinfra.stacks.clouds.local.leases import lease_gpus, release_gpus, use_error
from skyinfra.stacks.clouds.local.settings import LocalSettings, load_settings
from skyinfra.stacks.files import make_private_dir, read_json, write_json

__all__ = ["Declared", "Machine", "agent_marker", "create", "delete", "load", "machine_id", "stop", "update"]

JOB_GRACE_S = 2
KILL_TIMEOUT_S = 20


@dataclass(frozen=True)
class Declared:
    """What the program asks for: the inputs of ``skyinfra:local:Machine``."""

    cluster: str
    slot: int
    incarnation: int = 0
    server: str = ""
    workspace: str = ""
    cpus: float = 1.0
    memory_gb: float = 0.0
    gpus: tuple[str, int] | None = None
    image: str | None = None
    spot: bool = False
    power: str = "running"


@dataclass(frozen=True)
class Machine:
    """The record in ``machine.json``."""

    id: str
    cluster: str
    slot: int
    incarnation: int
    server: str
    workspace: str
    ip: str
    cpus: float
    memory_gb: float
    gpus: tuple[str, int] | None
    devices: tuple[str, ...]
    spot: bool
    power: str
    state: str
    """``creating`` | ``ready`` | ``deleting``."""

    def outputs(self) -> dict[str, Any]:
        """What the Machine resource gives: ``{id, internal_ip, external_ip, facts}``."""
        facts = {"cpus": self.cpus, "memory_gb": self.memory_gb, "gpus": list(self.devices), "power": self.power}
        return {"id": self.id, "internal_ip": self.ip, "external_ip": "127.0.0.1", "facts": facts}


def machine_id(cluster: str, slot: int, incarnation: int) -> str:
    """Deterministic, so that a Create that is repeated finds what the first one made."""
    return f"{cluster}-{slot}-{incarnation}"


def address(identifier: str) -> str:
    """A loopback address of the machine's own, so that two machines can bind one port."""
    digest = hashlib.sha256(identifier.encode()).digest()
    return f"127.{1 + digest[0] % 254}.{digest[1]}.{1 + digest[2] % 254}"


def folder(home: Home, identifier: str) -> Path:
    """Raises `ValueError` for an id that is no plain name: this path is removed with all that is in it."""
    if not identifier or "/" in identifier or identifier.startswith("."):
        raise ValueError(f"not a machine id: {identifier!r}")
    return home.nodes / identifier


def agent_dir(home: Home, identifier: str) -> Path:
    return folder(home, identifier) / "agent"


def agent_marker(home: Home, identifier: str) -> str:
    """The environment line that every process of this machine was started with."""
    return f"SKYINFRA_AGENT_STATE={agent_dir(home, identifier)}"


def load(home: Home, identifier: str) -> Machine | None:
    """The record, or None: no such machine, or a Create that was killed before its record."""
    try:
        raw = read_json(folder(home, identifier) / "machine.json")
    except json.JSONDecodeError:
        return None
    if raw is None:
        return None
    gpus = tuple(raw["gpus"]) if raw.get("gpus") else None
    return Machine(**{**raw, "gpus": gpus, "devices": tuple(raw.get("devices") or ())})


def stopped_itself(home: Home, identifier: str) -> bool:
    """Whether the node ended all it ran, as a machine that was shut down from inside; its record does not know it."""
    return (agent_dir(home, identifier) / "poweroff.json").exists() and not processes.marked(
        agent_marker(home, identifier)
    )


def _save(home: Home, machine: Machine) -> None:
    write_json(folder(home, machine.id) / "machine.json", asdict(machine))


def refuse_impossible(home: Home, declared: Declared) -> LocalSettings:
    """Raises `CloudError` before anything is made or started: an image, or more than this host has."""
    if declared.image:
        raise CloudError("user", f"the local cloud runs no images (asked for {declared.image})", "local")
    try:
        settings = load_settings(home)
    except ValueError as exc:
        raise CloudError("user", str(exc), "local") from exc
    if declared.cpus > settings.cpus:
        raise CloudError("capacity", f"asked for {declared.cpus:g} CPUs, this host has {settings.cpus:g}", "local")
    if declared.memory_gb > settings.memory_gb:
        words = f"asked for {declared.memory_gb:g} GB of memory, this host has {settings.memory_gb:g}"
        raise CloudError("capacity", words, "local")
    for wanted in settings.errors:
        if wanted.on == "create" and wanted.slot in (None, declared.slot) and use_error(home, wanted):
            raise CloudError(wanted.kind, wanted.message, "local")  # type: ignore[arg-type]
    return settings


def create(home: Home, declared: Declared, settings: LocalSettings) -> Machine:
    """Make the machine, or finish one whose Create was interrupted.

    Raises `CloudError` (capacity) when its GPUs are taken; the record is then there already.
    """
    identifier = machine_id(declared.cluster, declared.slot, declared.incarnation)
    boundary("provider.machine.create.before")
    make_private_dir(home.nodes)
    make_private_dir(folder(home, identifier))
    machine = load(home, identifier) or Machine(
        id=identifier,
        cluster=declared.cluster,
        slot=declared.slot,
        incarnation=declared.incarnation,
        server=declared.server,
        workspace=declared.workspace,
        ip=address(identifier),
        cpus=declared.cpus,
        memory_gb=declared.memory_gb,
        gpus=declared.gpus,
        devices=(),
        spot=declared.spot,
        power=declared.power,
        state="creating",
    )
    _save(home, machine)
    boundary("provider.machine.create.made")
    machine = _finish(home, machine, declared, settings)
    boundary("provider.machine.create.recorded")
    return machine


def _finish(home: Home, machine: Machine, declared: Declared, settings: LocalSettings) -> Machine:
    """All that comes after the record; repeated by an update of a machine whose Create was cut short."""
    devices: tuple[str, ...] = ()
    if declared.gpus:
        name, count = declared.gpus
        devices = tuple(gpu.device for gpu in lease_gpus(home, machine.id, name, count, settings.gpus))
    make_private_dir(folder(home, machine.id) / "home")
    make_private_dir(agent_dir(home, machine.id))
    finished = replace(
        machine,
        cpus=declared.cpus,
        memory_gb=declared.memory_gb,
        gpus=declared.gpus,
        devices=devices,
        spot=declared.spot,
        power=declared.power,
        state="ready",
    )
    _save(home, finished)
    return finished


def update(home: Home, identifier: str, declared: Declared) -> Machine:
    """Bring an existing machine to what is declared: size and power. Raises `CloudError`, also when it is gone."""
    machine = load(home, identifier)
    if machine is None:
        raise CloudError("transient", f"machine {identifier} is gone from {home.nodes}", "local")
    if declared.power == "stopped":
        return _power_off(home, machine)
    settings = refuse_impossible(home, declared)
    boundary("provider.machine.update.before")
    (agent_dir(home, identifier) / "poweroff.json").unlink(missing_ok=True)
    boundary("provider.machine.update.made")
    machine = _finish(home, machine, declared, settings)
    boundary("provider.machine.update.recorded")
    return machine


def _power_off(home: Home, machine: Machine) -> Machine:
    """A stopped machine keeps its disk and its size, and holds no GPU."""
    boundary("provider.machine.stop.before")
    stop(home, machine.id)
    release_gpus(home, machine.id)
    boundary("provider.machine.stop.made")
    stopped = replace(machine, devices=(), power="stopped", state="ready")
    _save(home, stopped)
    boundary("provider.machine.stop.recorded")
    return stopped


def stop(home: Home, identifier: str) -> None:
    """End every process of the machine; the disk stays. Raises `CloudError` (transient) naming what would not end."""
    state = agent_dir(home, identifier)
    archive = state / "agent.pyz"
    marker = agent_marker(home, identifier)
    if archive.exists() and ((state / "agent.json").exists() or processes.marked(marker)):
        _agent_kill(home, archive, state)
    left = processes.end(lambda: processes.marked(marker), timeout_s=KILL_TIMEOUT_S)
    if left:
        pids = ", ".join(str(process.pid) for process in left)
        raise CloudError("transient", f"machine {identifier}: processes {pids} do not end", "local")
    home.node_socket(identifier).unlink(missing_ok=True)


def _agent_kill(home: Home, archive: Path, state: Path) -> None:
    """The agent's own way out knows its jobs' strays; what it misses, the caller's scan by marker ends."""
    try:
        subprocess.run(
            [sys.executable, "-S", str(archive), "kill", "--state", str(state), "--grace", str(JOB_GRACE_S)],
            env={"PATH": os.environ.get("PATH", os.defpath), "SKYINFRA_HOME": str(home.root)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=KILL_TIMEOUT_S,
            check=False,  # the scan by marker that follows is the proof, not this exit code
        )
    except subprocess.TimeoutExpired:
        pass  # likewise


def delete(home: Home, identifier: str) -> None:
    """End it, remove it, prove it gone; one that is gone already is done. Raises `CloudError`."""
    place = folder(home, identifier)
    boundary("provider.machine.delete.before")
    if place.is_dir():
        machine = load(home, identifier)
        if machine is not None:
            _refuse_on_demand(home, machine)
            _save(home, replace(machine, state="deleting"))
        stop(home, identifier)
        boundary("provider.machine.delete.made")
        _remove_tree(place)
    release_gpus(home, identifier)
    if place.exists() or processes.marked(agent_marker(home, identifier)):
        raise CloudError("transient", f"machine {identifier} came back while it was deleted", "local")
    _drop_if_empty(home.sockets())
    boundary("provider.machine.delete.recorded")


def _refuse_on_demand(home: Home, machine: Machine) -> None:
    try:
        settings = load_settings(home)
    except ValueError:
        return  # a bad local.yaml must not keep anyone from deleting
    for wanted in settings.errors:
        if wanted.on == "delete" and wanted.slot in (None, machine.slot) and use_error(home, wanted):
            raise CloudError(wanted.kind, wanted.message, "local")  # type: ignore[arg-type]


def _remove_tree(place: Path) -> None:
    """The record goes last: killed at any point, what is left still says whose it is."""

    def make_writable_and_retry(function: Any, path: str, _: Any) -> None:
        if not os.path.lexists(path):
            return
        os.chmod(os.path.dirname(path), 0o700)  # a job may have taken its own folder's write bit
        if not os.path.islink(path):
            os.chmod(path, 0o700)
        function(path)

    for entry in list(place.iterdir()):
        if entry.name == "machine.json":
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, onerror=make_writable_and_retry)
        else:
            entry.unlink(missing_ok=True)
    (place / "machine.json").unlink(missing_ok=True)
    place.rmdir()


def _drop_if_empty(path: Path) -> None:
    try:
        path.rmdir()
    except OSError:
        pass  # others' sockets are in it, or it was never made
