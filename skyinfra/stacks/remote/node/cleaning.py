"""Ending and removing all that belongs to one machine id, and proving it."""

import glob
import os
import shutil
import sys
import time
from typing import Any, Dict, List

from skyinfra.runtime import disk, procs
from skyinfra.stacks.remote.node import boots, machine

MARKER = "SKYINFRA_AGENT_STATE"
LINKS = ("sky_workdir", "sky_logs")
JOB_GRACE_S = 2.0


def state_of(root: str) -> str:
    """The agent's state folder."""
    return os.path.join(root, "agent")


def agent_record(state: str) -> Dict[str, Any]:
    """The identity of the agent that runs, or an empty one."""
    record = disk.read_json(os.path.join(state, "agent.json")) or {}
    lives = record.get("boot_id") == procs.boot_id() and procs.alive(record.get("pid", 0), record.get("start_ticks", 0))
    return record if lives else {}


def marked(state: str) -> Dict[int, procs.Stat]:
    """The processes that were started for this state folder."""
    table = procs.snapshot()
    found = procs.marked("{}={}".format(MARKER, state).encode(), table)
    return {pid: table[pid] for pid in found if pid != os.getpid()}


def end_all(root: str) -> List[str]:
    """End every process of the machine id; what would not go, in words."""
    state = state_of(root)
    archives = sorted(glob.glob(os.path.join(state, "agent-*.pyz")), key=os.path.getmtime)
    if archives and (os.path.exists(os.path.join(state, "agent.json")) or marked(state)):
        # the agent's own way out knows its jobs' strays; the scan that follows is the proof
        grace = "{:g}".format(JOB_GRACE_S)
        machine.run([sys.executable, "-I", "-S", "-B", archives[-1], "kill", "--state", state, "--grace", grace])
    procs.end_all(lambda: marked(state), 0)
    return ["process {} ({})".format(seen.pid, seen.name) for seen in marked(state).values()]


def clear(identifier: str, root: str) -> List[str]:
    """Remove all of the machine id; what would not go, in words. Empty = proven clean. Idempotent."""
    boots.forget(identifier)
    left = end_all(root)
    if left:
        return left  # what it writes would come back
    remove_links(root)
    _remove_tree(root)
    try:
        os.rmdir(os.path.dirname(root))
    except OSError:
        pass  # other machine ids are in it, or it was never made
    if os.path.lexists(root):
        left.append(root)
    left += ["process {} ({})".format(seen.pid, seen.name) for seen in marked(state_of(root)).values()]
    return left + boots.left(identifier)


def _remove_tree(root: str) -> None:
    def again(function: Any, path: str, _: Any) -> None:
        try:
            os.chmod(os.path.dirname(path), 0o700)  # a job may have taken its own folder's write bit
            if not os.path.islink(path):
                os.chmod(path, 0o700)
            function(path)
        except OSError:
            pass  # tried again below, and reported by whoever looks

    if os.path.islink(root):
        os.unlink(root)
    deadline = time.monotonic() + 5
    while (
        os.path.lexists(root) and time.monotonic() < deadline
    ):  # folders whose bits were mended are gone through again
        shutil.rmtree(root, onerror=again)


def make_links(home: str) -> None:
    """So that people who log in find ``~/sky_workdir`` and ``~/sky_logs``. Nothing of theirs is replaced."""
    own = os.path.expanduser("~")
    for name in LINKS if home != own else ():
        try:
            os.symlink(os.path.join(home, name), os.path.join(own, name))
        except FileExistsError:
            pass  # theirs, or made before


def remove_links(root: str) -> None:
    for name in LINKS:
        path = os.path.join(os.path.expanduser("~"), name)
        if os.path.islink(path) and os.readlink(path).startswith(root + os.sep):
            os.unlink(path)
