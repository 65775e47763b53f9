"""Our own store of host keys: trusted at the first contact, pinned from then on.

The file has OpenSSH's known_hosts format: ``ssh -o UserKnownHostsFile=…`` reads it. Several processes may use it.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from skyinfra.channels.ssh_target import SshFailed

if TYPE_CHECKING:
    from paramiko import PKey

__all__ = ["check_host_key", "forget_host", "pinned_types"]


def pinned_types(store: Path, name: str) -> list[str]:
    """The types of the keys that are pinned for `name`: ask the host for one of these, not for another it also has."""
    return [kind for kind, _ in _read(store, name)]


def check_host_key(store: Path, name: str, shown: str, key: PKey) -> None:
    """Pin the key at the first contact. Raises `SshFailed` (fatal) when another one is pinned.

    `shown` is what the host is called in messages.
    """
    store.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    kind, blob = key.get_name(), base64.b64encode(key.asbytes()).decode()
    # One lock for reading and writing: two first contacts at once must not pin two keys.
    with open(os.open(store, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600), "a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        pinned = _read(store, name)
        if not pinned:
            file.write(f"{name} {kind} {blob}\n")
            file.flush()
            os.fsync(file.fileno())
            return
    if (kind, blob) not in pinned:
        raise SshFailed(
            f"the host key of {shown} has changed (now {kind} {fingerprint(key)}): somebody may be listening in. "
            f"If the machine was installed anew, remove the line of {name} from {store}",
            fatal=True,
        )


def forget_host(store: Path, name: str) -> bool:
    """Trust the next key that is seen again; whether one was pinned."""
    if not store.exists():
        return False
    with open(store, "r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        lines = file.readlines()
        kept = [line for line in lines if line.split(" ", 1)[0] != name]
        file.seek(0)
        file.truncate()
        file.writelines(kept)
    return len(kept) != len(lines)


def fingerprint(key: PKey) -> str:
    """As ``ssh-keygen -l`` shows it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(key.asbytes()).digest()).decode().rstrip("=")


def _read(store: Path, name: str) -> list[tuple[str, str]]:
    try:
        lines = store.read_text().splitlines()
    except FileNotFoundError:
        return []
    rows = [line.split() for line in lines]
    return [(row[1], row[2]) for row in rows if len(row) >= 3 and row[0] == name]
