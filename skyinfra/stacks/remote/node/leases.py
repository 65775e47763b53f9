"""The lease of the machine: one file that every login sees, changed under one flock.

Whoever else shares the machine, two servers never hold it: who takes it does so with the lock held, and writes the
lease before anything else of a machine id is there. A lease ends by being given back; one that expired (it is renewed
whenever its server looks) is taken over only when nothing of it runs any more, and cleaned first.
"""

import contextlib
import fcntl
import json
import os
import time
from typing import Any, Dict, Iterator, Optional

from skyinfra.stacks.remote.node import cleaning, machine

Lease = Dict[str, Any]
"""What was asked for (``{machine_id, server, cluster, name, workspace, slot, incarnation, ttl_s, root}``), and ``{user,
since, expires_at, state, version}``."""


def look(request: Dict[str, Any]) -> Dict[str, Any]:
    """``{facts, lease, agent}``. The asking server's lease is renewed when half of its time is over."""
    lease = read_lease(request["leases"])
    if lease is not None and _is_due(lease, request.get("server")):
        with _locked(request["leases"]):
            lease = read_lease(request["leases"])
            if lease is not None and _is_due(lease, request.get("server")):
                lease = dict(lease, expires_at=time.time() + lease["ttl_s"])
                _write_lease(request["leases"], lease)
    ours = lease is not None and lease["user"] == machine.login()
    alive = ours and lease is not None and bool(cleaning.agent_record(cleaning.state_of(lease["root"])))
    return {"facts": machine.facts(), "lease": lease, "agent": "alive" if alive else "dead"}


def _is_due(lease: Lease, server: Optional[str]) -> bool:
    mine = bool(server) and lease["server"] == server and lease["user"] == machine.login()
    return mine and lease["expires_at"] - time.time() < lease["ttl_s"] / 2


def take(request: Dict[str, Any]) -> Dict[str, Any]:
    """``{facts, lease}``, or ``{held: lease}`` when somebody else has it. Idempotent by machine id."""
    wanted: Lease = request["lease"]
    with _locked(request["leases"]):
        lease = read_lease(request["leases"])
        if lease is not None and lease["machine_id"] != wanted["machine_id"]:
            if not _abandoned(lease) or cleaning.clear(lease["machine_id"], lease["root"]):
                return {"held": lease}
            lease = None
        if lease is None:
            root = os.path.expanduser(wanted["root"])
            lease = dict(wanted, root=root, version=1, since=time.time(), user=machine.login(), state="held")
        lease = dict(lease, expires_at=time.time() + lease["ttl_s"])
        _write_lease(request["leases"], lease)
    return {"facts": machine.facts(), "lease": lease}


def _abandoned(lease: Lease) -> bool:
    """Expired, and nothing of it runs, as far as this login can see."""
    if lease["expires_at"] > time.time() or (lease["user"] != machine.login() and os.getuid() != 0):
        return False
    return not cleaning.marked(cleaning.state_of(lease["root"]))


def give_back(request: Dict[str, Any]) -> Dict[str, Any]:
    """``{gone: true}``, or ``{left: [what would not go]}``. No process, file or crontab line stays. Idempotent."""
    identifier, folder = request["machine_id"], request["leases"]
    root = os.path.expanduser(request["root"])
    if read_lease(folder) is None and not os.path.lexists(root):
        return {"gone": True}
    with _locked(folder):
        lease = read_lease(folder)
        ours = lease is not None and lease["machine_id"] == identifier
        if lease is not None and ours:
            _write_lease(folder, dict(lease, state="releasing"))
        left = cleaning.clear(identifier, root)
        if left:
            return {"left": left}
        if ours:
            os.unlink(os.path.join(folder, "lease.json"))
        if lease is None or ours:
            _drop_folder(folder)
    return {"gone": True}


def refusal(request: Dict[str, Any]) -> str:
    """Why this machine is not the one that the machine id means; "" when it is."""
    lease = read_lease(request["leases"])
    if lease is not None and lease["machine_id"] == request["machine_id"]:
        return ""
    holder = "nobody" if lease is None else lease["machine_id"]
    return "this machine is leased to {}, not to {}".format(holder, request["machine_id"])


def read_lease(folder: str) -> Optional[Lease]:
    try:
        with open(os.path.join(folder, "lease.json")) as file:
            return json.load(file)
    except (OSError, ValueError):
        return None


def _write_lease(folder: str, lease: Lease) -> None:
    path = os.path.join(folder, "lease.json")
    temporary = "{}.{}.tmp".format(path, os.getpid())
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    with os.fdopen(descriptor, "w") as file:
        os.fchmod(descriptor, 0o644)  # every login reads it, whatever the umask
        json.dump(lease, file, sort_keys=True)
        file.flush()
        os.fsync(descriptor)
    os.replace(temporary, path)


@contextlib.contextmanager
def _locked(folder: str) -> Iterator[None]:
    """The machine-wide lock. Who gives the last lease back removes its file, so it is looked at again once locked."""
    path = os.path.join(folder, "lock")
    while True:
        lock = _open_lock(folder, path)
        if lock < 0:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if _is_current(path, lock):
                yield
                return
        finally:
            os.close(lock)


def _open_lock(folder: str, path: str) -> int:
    """-1: somebody removed the folder meanwhile. Without O_CREAT first: in a sticky folder it is refused on others'."""
    try:
        os.mkdir(folder)
        os.chmod(folder, 0o1777)  # every login may take the lease; only the one that has it may change it
    except FileExistsError:
        pass  # the usual case
    try:
        return os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        pass  # it is made below
    try:
        return os.open(path, os.O_RDONLY | os.O_CREAT, 0o644)
    except FileNotFoundError:
        return -1


def _is_current(path: str, lock: int) -> bool:
    try:
        return os.stat(path).st_ino == os.fstat(lock).st_ino
    except FileNotFoundError:
        return False


def _drop_folder(folder: str) -> None:
    try:
        os.unlink(os.path.join(folder, "lock"))
        os.rmdir(folder)
    except OSError:
        pass  # the lock's file is another login's, or somebody came meanwhile: it does no harm
