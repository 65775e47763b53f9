"""Starting the agent on this machine, as it should be: version, boot and generation. Jobs outlive all of it."""

import base64
import http.client
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from typing import Any, Dict, List, Optional

from skyinfra.runtime import disk, procs
from skyinfra.stacks.remote.node import boots, cleaning, leases, machine

SHUTDOWN_GRACE_S = 5.0
PROBE_S = 2.0
POLL_S = 0.01


def ensure(request: Dict[str, Any]) -> Dict[str, Any]:
    """``{ready, socket}``; ``{need: "program"}`` or ``{need: "token"}``: it is not here yet; ``{failed: why}``.

    Idempotent. `request`: machine_id; root; home (None: its own, below the root); socket; version, boot, generation;
    token (None: the one that is there); program (base64, or None); leased (whether the machine must be leased to this
    id) and leases; absolute_paths; wait_s; keep_boot (whether it comes back after a boot).
    """
    if request["leased"]:
        refused = leases.refusal(request)
        if refused:
            return {"failed": refused, "gone": True}
    root = os.path.expanduser(request["root"])
    state, where = cleaning.state_of(root), os.path.expanduser(request["socket"])
    home = os.path.join(root, "home") if request["home"] is None else os.path.expanduser(request["home"])
    token = request["token"] or _token_there(state)
    if not token:
        return {"need": "token"}
    if _as_wanted(request, where, token):
        return {"ready": "ran already", "socket": where}
    program = os.path.join(state, "agent-{}.pyz".format(request["version"]))
    for folder in (os.path.dirname(root), root, state):
        disk.private_folder(folder)
    if not os.path.exists(program):
        if request["program"] is None:
            return {"need": "program"}
        _put(program, base64.b64decode(request["program"]))
    _end(state)
    _put(os.path.join(state, "token"), token.encode())
    disk.remove_file(os.path.join(state, "poweroff.json"))  # it says nothing any more about a node that runs
    cleaning.make_links(home)
    return _start(request, _argv(request, program, state, home, where), root, where, token)


def _put(path: str, data: bytes) -> None:
    temporary = "{}.{}.tmp".format(path, os.getpid())
    disk.write_file(temporary, data)
    os.replace(temporary, path)


def _token_there(state: str) -> str:
    try:
        return disk.read_file(os.path.join(state, "token")).decode().strip()
    except OSError:
        return ""


class _Unix(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("agent", timeout=PROBE_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _as_wanted(request: Dict[str, Any], where: str, token: str) -> bool:
    connection = _Unix(where)
    try:
        connection.request("GET", "/v1/health", headers={"Authorization": "Bearer " + token})
        health = json.loads(connection.getresponse().read())
        return all(health.get(name) == request[name] for name in ("version", "boot", "generation"))
    except (OSError, http.client.HTTPException, ValueError):
        return False
    finally:
        connection.close()


def _end(state: str) -> None:
    """The agent, but none of its jobs: as shutdown first, by force when it hangs."""
    record = cleaning.agent_record(state)
    if not record:
        return
    pid, ticks = record["pid"], record["start_ticks"]
    procs.send_signal(pid, ticks, signal.SIGTERM)
    deadline = time.monotonic() + SHUTDOWN_GRACE_S
    while procs.alive(pid, ticks):
        if time.monotonic() > deadline:
            procs.send_signal(pid, ticks, signal.SIGKILL)
        time.sleep(POLL_S)


def _argv(request: Dict[str, Any], program: str, state: str, home: str, where: str) -> List[str]:
    argv = [sys.executable, "-I", "-S", "-B", program, "serve", "--state", state, "--home", home, "--socket", where]
    argv += ["--boot", str(request["boot"]), "--generation", str(request["generation"])]
    argv += ["--cpus", str(machine.cpus()), "--ip", machine.own_address()]
    devices = [gpu["index"] for gpu in machine.gpus()]
    argv += ["--gpus", ",".join(devices)] if devices else []
    return argv + (["--absolute-paths"] if request["absolute_paths"] else [])


def _start(request: Dict[str, Any], argv: List[str], root: str, where: str, token: str) -> Dict[str, Any]:
    state = cleaning.state_of(root)
    log = os.path.join(state, "agent.log")
    script = _script(root, argv, state, log)
    after_boot = boots.keep(request["machine_id"], script) if request["keep_boot"] else "no: not asked for"
    process: Optional["subprocess.Popen[bytes]"] = None
    if after_boot != "systemd":
        process = _spawn(script)
    deadline = time.monotonic() + request["wait_s"]
    while time.monotonic() < deadline:
        if _as_wanted(request, where, token):
            return {"ready": "started", "after_boot": after_boot, "socket": where}
        if process is not None and process.poll() is not None:
            return {"failed": "it ended with code {}: {}".format(process.returncode, _last_line(log))}
        time.sleep(POLL_S)
    return {"failed": "it was not ready within {:g} s: {}".format(request["wait_s"], _last_line(log))}


def _script(root: str, argv: List[str], state: str, log: str) -> str:
    """What starts the agent, now and after a boot, with nothing of this login's environment but what all have."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "TZ") if name in os.environ}
    own = {"USER": machine.login(), "HOME": os.path.expanduser("~"), cleaning.MARKER: state}
    env = ["{}={}".format(name, value) for name, value in sorted({"PATH": os.defpath, **kept, **own}.items())]
    words = " ".join(shlex.quote(word) for word in ["env", "-i", *env, *argv])
    path = os.path.join(root, "start.sh")
    text = "#!/bin/sh\ncd / && umask 077 && exec {} >> {} 2>&1 < /dev/null\n".format(words, shlex.quote(log))
    _put(path, text.encode())
    return path


def _spawn(script: str) -> "subprocess.Popen[bytes]":
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(["/bin/sh", script], start_new_session=True, **quiet)  # type: ignore[call-overload]


def _last_line(path: str) -> str:
    try:
        lines = disk.read_file(path)[-4096:].decode(errors="replace").strip().splitlines()
    except OSError:
        return "there is no log"
    return lines[-1][:300] if lines else "its log is empty"
