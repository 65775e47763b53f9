"""A node agent on a test host, and the way to it over the ssh channel: for tests of channels and for measurements."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import Any

from skyinfra.channels.ssh_connection import SshTarget, connect
from skyinfra.model.home import Home
from skyinfra.runtime import package
from skyinfra.testing.hosts.host import Host
from skyinfra.testing.hosts.lab import HostLab
from skyinfra.testing.world import wait_until

__all__ = ["TOKEN", "AgentOnHost"]

TOKEN = "agent-token"
FOLDER = ".node"
READY_S = 60.0


class AgentOnHost:
    """Put there over SSH, in ``~/.node`` of the host's user, and started. Ends with the host."""

    def __init__(self, lab: HostLab, host: Host, home: Home) -> None:
        """`home` keeps the pinned host key. Raises `SshFailed`."""
        self.host = host
        known = home.root / "known_hosts"
        key = str(lab.key)
        self.target = SshTarget(host.address, user=host.user, identity_file=key, known_hosts=known, use_config=False)
        with connect(self.target, time.monotonic() + READY_S) as ssh:
            ssh.run(f"mkdir -p -m 700 {FOLDER} {FOLDER}/state {FOLDER}/home")
            ssh.put(package.build(home.root / "pyz").read_bytes(), f"{FOLDER}/agent.pyz")
            ssh.put(TOKEN.encode(), f"{FOLDER}/state/token")
        self.start()

    @property
    def node(self) -> dict[str, Any]:
        """As in a stack's outputs."""
        channel = {"kind": "ssh", "cloud": "test", "machine": self.host.name, "socket": f"~/{FOLDER}/a.sock"}
        return {"slot": 0, "id": self.host.name, "channel": channel}

    def start(self) -> None:
        """Returns when it listens."""
        argv = "/usr/bin/python3 -ISB agent.pyz serve --state state --home home --socket a.sock --boot 0 --generation 0"
        line = f"cd ~/{FOLDER} && exec setsid {argv} --cpus 2 --ip 127.0.0.1 </dev/null >>agent.log 2>&1 &"
        with connect(self.target, time.monotonic() + READY_S) as ssh:
            ssh.run(f"sh -c {shlex.quote(line)}")
        listens = "grep -c a.sock /proc/net/unix || true"
        wait_until(lambda: int(self.host.console(listens)), READY_S, f"the agent on {self.host.name} listens")

    def file(self, name: str) -> Path:
        """Where a file of the node's HOME is for this machine."""
        user = "root" if self.host.user == "root" else f"home/{self.host.user}"
        return self.host.path(f"/{user}/{FOLDER}/home/{name}")
