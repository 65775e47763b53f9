"""Where everything of one state folder lies: paths only, no I/O.

`Home` is built once at each entry point from ``SKYINFRA_HOME`` (default ``~/.skyinfra``) and passed down.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Home"]


@dataclass(frozen=True)
class Home:
    """The layout of a state folder. Every folder in it is 0700 and every file that holds a credential 0600."""

    root: Path

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> Home:
        """`SKYINFRA_HOME`, else ``~/.skyinfra``; always absolute."""
        given = env.get("SKYINFRA_HOME")
        root = Path(given).expanduser() if given else Path(env.get("HOME") or Path.home()) / ".skyinfra"
        return cls(Path(os.path.abspath(root)))

    @property
    def config(self) -> Path:
        """The configuration: the server's layer, and the user's unless the environment names another file."""
        return self.root / "config.yaml"

    @property
    def server_json(self) -> Path:
        """`{pid, start_ticks, boot_id, host, port, version, started_at}` of the running server."""
        return self.root / "server.json"

    @property
    def server_lock(self) -> Path:
        """flock'ed by the one server of this state folder; its text is the owner's pid."""
        return self.root / "server.lock"

    @property
    def server_log(self) -> Path:
        return self.root / "server.log"

    @property
    def server_id(self) -> Path:
        """8 hex characters that mark everything made by this state folder (tag `skyinfra-server`)."""
        return self.root / "server-id"

    @property
    def token(self) -> Path:
        return self.root / "token"

    @property
    def database(self) -> Path:
        return self.root / "skyinfra.db"

    @property
    def secrets_key(self) -> Path:
        """The key that seals secret rows (envelope encryption)."""
        return self.root / "keys" / "secrets.key"

    @property
    def passphrase(self) -> Path:
        """Pulumi's passphrase file."""
        return self.root / "keys" / "passphrase"

    @property
    def pulumi_home(self) -> Path:
        return self.root / "pulumi"

    @property
    def backend(self) -> Path:
        """Folder of the default `file://` backend (the engine makes `.pulumi/` in it)."""
        return self.root / "stacks"

    @property
    def operations(self) -> Path:
        return self.root / "operations"

    @property
    def nodes(self) -> Path:
        """One folder per machine of the local cloud."""
        return self.root / "nodes"

    @property
    def blobs(self) -> Path:
        """Manifests of uploaded file trees, by sha256."""
        return self.root / "blobs"

    @property
    def chunks(self) -> Path:
        """The contents of uploaded files, in packs."""
        return self.root / "chunks"

    @property
    def request_logs(self) -> Path:
        return self.root / "requests"

    @property
    def locks(self) -> Path:
        """flock files: GPU leases of the local cloud."""
        return self.root / "locks"

    @property
    def known_hosts(self) -> Path:
        """Host keys of machines, pinned at the first contact."""
        return self.root / "ssh" / "known_hosts"

    def sockets(self, env: Mapping[str, str] = os.environ) -> Path:
        """Folder for unix sockets, `<runtime dir>/skyinfra-<8 hex of root>`: a socket path ends at 108 bytes."""
        base = env.get("XDG_RUNTIME_DIR") or f"/tmp/skyinfra-{os.getuid()}"
        return Path(base) / f"skyinfra-{hashlib.sha256(str(self.root).encode()).hexdigest()[:8]}"

    def tunnel(self, env: Mapping[str, str] = os.environ) -> Path:
        """Folder of the tunnel process: its lock, its control socket, one socket per agent reached over SSH."""
        sockets = self.sockets(env)
        return sockets.with_name(f"{sockets.name}-ssh")

    @property
    def tunnel_log(self) -> Path:
        return self.root / "tunnel.log"

    def node_socket(self, machine_id: str, env: Mapping[str, str] = os.environ) -> Path:
        """The agent socket of a local machine."""
        return self.sockets(env) / f"{hashlib.sha256(machine_id.encode()).hexdigest()[:8]}.sock"
