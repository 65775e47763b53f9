"""Pools of machines that the server reaches over SSH, and people's own way to the nodes of clusters."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from skyinfra.client import caller
from skyinfra.client.requests import get, submit
from skyinfra.model.requests import RequestId

__all__ = ["ssh_down", "ssh_status", "ssh_up", "write_ssh_config"]

MARK = "# Written by skyinfra, anew whenever clusters come and go."
#: Looking at many machines that are off takes a while.
LOOK_S = 120.0


def ssh_up(infra: str | None = None, file: str | None = None) -> RequestId[dict[str, Any]]:
    """Look at the machines of a pool (all when None) and offer them from now on.

    `file`: an ``ssh_node_pools.yaml`` whose pools are added to the server's, in the place of those of the same name.
    `get` yields ``{pool: {host: {facts, problem, at}}}`` and raises `ValueError` for a bad file or an unknown pool.
    Raises `OSError` when the file cannot be read, `InvalidSkyPilotConfigError` when it is wrong.
    """
    body: dict[str, Any] = {"infra": infra, **caller.about()}
    if file is not None:
        from skyinfra.model.ssh_pools import pools_of_text

        text = Path(file).expanduser().read_text()
        pools_of_text(text, file)  # here, where its name means something
        body |= {"pools": text, "file": file}
    return submit("ssh_up", body, timeout_s=LOOK_S)


def ssh_down(infra: str | None = None) -> RequestId[list[str]]:
    """Offer the machines of a pool (all when None) no more. `get` yields which pools, and raises `ValueError` while
    clusters are there."""
    return submit("ssh_down", {"infra": infra, **caller.about()}, timeout_s=LOOK_S)


def ssh_status(infra: str | None = None) -> RequestId[dict[str, list[dict[str, Any]]]]:
    """`get` yields by pool its hosts: ``{host, up, state, facts, holder, problem}``."""
    return submit("ssh_status", {"infra": infra, **caller.about()}, timeout_s=LOOK_S)


def write_ssh_config(home: Path) -> list[str]:
    """Make `ssh CLUSTER` and `ssh CLUSTER-worker1` work: a file per cluster below `home`, which ``~/.ssh/config``
    includes. Files of clusters that are gone are removed. Returns the clusters. Raises `OSError`.
    """
    told = get(submit("ssh_config", caller.about()))
    folder = home / "generated" / "ssh"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    pins = folder.parent / "known_hosts"
    _put(pins, "".join(f"{line}\n" for line in told["known_hosts"]))
    for name, entries in told["entries"].items():
        _put(folder / name, f"{MARK}\n" + "".join(_block(entry, pins) for entry in entries))
    for path in folder.iterdir():
        if path.name not in told["entries"]:
            path.unlink()
    if told["entries"]:
        _include(Path(os.environ.get("HOME") or Path.home()) / ".ssh", folder)
    return sorted(told["entries"])


def _block(entry: dict[str, Any], pins: Path) -> str:
    lines = [f"Host {entry['host']}"]
    lines += [f"  {name} {_quoted(value) if name == 'IdentityFile' else value}" for name, value in entry["options"]]
    lines += [f"  UserKnownHostsFile {_quoted(str(pins))}", "  StrictHostKeyChecking yes"]
    return "\n".join(lines) + "\n"


def _quoted(path: str) -> str:
    return f'"{path}"'


def _include(folder: Path, generated: Path) -> None:
    """At the top: an ``Include`` below a ``Host`` would hold for that host only. Idempotent."""
    line = f"Include {_quoted(str(generated / '*'))}"
    path = folder / "config"
    folder.mkdir(mode=0o700, exist_ok=True)
    before = path.read_text() if path.exists() else ""
    if line not in before.splitlines():
        real = Path(os.path.realpath(path))  # people keep it elsewhere, behind a link
        _put(real, f"# Added by skyinfra: `ssh CLUSTER`.\n{line}\n\n{before}")


def _put(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o600
    temporary.touch(mode=0o600)
    temporary.write_text(text)
    temporary.chmod(mode)
    temporary.replace(path)
