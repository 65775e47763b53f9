"""The node agent's process on a local machine: start, replace, ask. Jobs outlive all of it.

The agent runs in a session of its own with a minimal environment, so neither the worker that started it nor that
worker's secrets go with it. Refuses to start one beside another: the old one is ended first, as shutdown, never kill.
"""

from __future__ import annotations

import getpass
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from skyinfra.channels.local import probe_health
from skyinfra.model.home import Home
from skyinfra.runtime import package
from skyinfra.runtime.boundary import boundary, campaign_variables
from skyinfra.stacks import processes
from skyinfra.stacks.clouds.failures import CloudError
from skyinfra.stacks.clouds.local import machine as machines
from skyinfra.stacks.files import make_private_dir, read_json, write_atomic, write_json

__all__ = ["Wanted", "channel_of", "ensure_running", "shut_down"]

READY_DEADLINE_S = 20.0
SHUTDOWN_GRACE_S = 5.0
PROBE_TIMEOUT_S = 1.0


@dataclass(frozen=True)
class Wanted:
    """The agent that should run: the inputs of ``skyinfra:index:Agent``."""

    machine_id: str
    version: str
    boot: int
    generation: int


def channel_of(home: Home, machine_id: str) -> dict[str, str]:
    """How to reach the agent of a local machine."""
    return {"kind": "local", "socket": str(home.node_socket(machine_id))}


def ensure_running(
    home: Home,
    wanted: Wanted,
    token: str | None,
    cancelled: Callable[[], bool],
    new_token: Callable[[], str | None] = lambda: None,
) -> None:
    """The agent as wanted answers `/v1/health` on its socket. Idempotent. `new_token`: when it has and gets none.

    Raises `CloudError`: transient when the machine is gone or the agent is not ready in time, ours when its version
    cannot be had, and whatever `cancelled` cut short.
    """
    machine = machines.load(home, wanted.machine_id)
    if machine is None or machine.state == "deleting":
        raise CloudError("transient", f"machine {wanted.machine_id} is gone", "local")
    state = machines.agent_dir(home, wanted.machine_id)
    token = token or _token_on_disk(state) or new_token()
    if token is None:
        raise CloudError("ours", f"no token for the agent of {wanted.machine_id}")
    if _is_as_wanted(home, wanted, token):
        return
    boundary("provider.agent.create.before")
    shut_down(home, wanted.machine_id)
    _install(home, wanted, state, token)
    (state / "poweroff.json").unlink(missing_ok=True)  # it says nothing any more about a node that runs
    process = _start(home, wanted, machine, state)
    boundary("provider.agent.create.made")
    _await_ready(home, wanted, token, process, cancelled)
    boundary("provider.agent.create.recorded")


def _token_on_disk(state: Path) -> str | None:
    try:
        return (state / "token").read_text().strip() or None
    except FileNotFoundError:
        return None


def _is_as_wanted(home: Home, wanted: Wanted, token: str) -> bool:
    health = probe_health(channel_of(home, wanted.machine_id), token, PROBE_TIMEOUT_S)
    return health is not None and (health.get("version"), health.get("boot"), health.get("generation")) == (
        wanted.version,
        wanted.boot,
        wanted.generation,
    )


def shut_down(home: Home, machine_id: str) -> None:
    """End the agent but none of its jobs. One that is gone already is done; one that hangs is killed."""
    try:
        record = read_json(machines.agent_dir(home, machine_id) / "agent.json")
    except json.JSONDecodeError:
        record = None
    identity = processes.Identity.from_json(record) if record else None
    if identity is None or not processes.alive(identity):
        return
    os.kill(identity.pid, signal.SIGTERM)
    if not processes.wait_until(lambda: not processes.alive(identity), SHUTDOWN_GRACE_S):
        processes.end(lambda: [identity] if processes.alive(identity) else [])


def _install(home: Home, wanted: Wanted, state: Path, token: str) -> None:
    """Token and program on the machine, each by rename."""
    archive = state / "agent.pyz"
    cache = make_private_dir(home.root / "agent-cache")
    if wanted.version == package.agent_version():
        source = package.build(cache)
    else:
        source = cache / f"agent-{wanted.version}.pyz"  # pinned by a release that is gone from here
    if not source.exists():
        words = f"agent {wanted.version} is not in {cache}; launch or start the cluster again to upgrade it"
        raise CloudError("ours", words)
    write_atomic(state / "token", token.encode())
    temporary = state / ".agent.pyz.tmp"
    shutil.copyfile(source, temporary)
    os.replace(temporary, archive)


def _start(home: Home, wanted: Wanted, machine: machines.Machine, state: Path) -> subprocess.Popen[bytes]:
    socket = home.node_socket(wanted.machine_id)
    make_private_dir(socket.parent)
    argv = [sys.executable, "-I", "-S", "-B", str(state / "agent.pyz"), "serve", "--state", str(state)]
    argv += ["--home", str(state.parent / "home"), "--socket", str(socket)]
    argv += ["--boot", str(wanted.boot), "--generation", str(wanted.generation)]
    argv += ["--cpus", f"{machine.cpus:g}", "--ip", machine.ip]
    if machine.devices:
        argv += ["--gpus", ",".join(machine.devices)]
    # The intent is on disk before the process is: whoever finds it looks for the marker in /proc.
    write_json(state / "start.json", {"at": time.time(), "argv": argv, "boot_id": processes.boot_id()})
    with (state / "agent.log").open("ab") as log:
        os.fchmod(log.fileno(), 0o600)
        return subprocess.Popen(
            argv,
            cwd=state,
            env=_environment(home, state),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def _environment(home: Home, state: Path) -> dict[str, str]:
    """Nothing of the worker's but what a login would have; no credential."""
    kept = {
        name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "TZ", "XDG_RUNTIME_DIR") if name in os.environ
    }
    return {
        "PATH": os.defpath,
        "USER": getpass.getuser(),
        **kept,
        **campaign_variables(os.environ),
        "SKYINFRA_HOME": str(home.root),
        "SKYINFRA_AGENT_STATE": str(state),
    }


def _await_ready(
    home: Home, wanted: Wanted, token: str, process: subprocess.Popen[bytes], cancelled: Callable[[], bool]
) -> None:
    log = machines.agent_dir(home, wanted.machine_id) / "agent.log"
    ready = ended = False

    def settled() -> bool:
        nonlocal ready, ended
        ready = _is_as_wanted(home, wanted, token)
        ended = process.poll() is not None
        return ready or ended or cancelled()

    processes.wait_until(settled, READY_DEADLINE_S)
    if ready:
        return
    if cancelled() and not ended:
        raise CloudError("transient", f"cancelled while the agent of {wanted.machine_id} was starting", "local")
    how = f"ended with code {process.returncode}" if ended else f"was not ready within {READY_DEADLINE_S:g} s"
    raise CloudError("transient", f"the agent of {wanted.machine_id} {how}: {_last_line(log)}", "local")


def _last_line(path: Path) -> str:
    try:
        lines = path.read_bytes()[-4096:].decode(errors="replace").strip().splitlines()
    except FileNotFoundError:
        return "no log"
    return lines[-1][:300] if lines else "its log is empty"
