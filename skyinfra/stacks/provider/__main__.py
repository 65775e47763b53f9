"""``pulumi-resource-skyinfra``: the plugin process, for engines that no worker of ours drives.

Prints its port, as every Pulumi plugin does, and serves until its standard input ends. Where a worker serves the
provider already (``SKYINFRA_PROVIDER_PORT``) it says that one's port: an engine that finds this command on the PATH
would otherwise reach a provider that does not know the cluster's token. A machine that has an agent
keeps its token; a new one gets that of the state folder (``keys/agent-token``, 0600), made at the first need.
"""

from __future__ import annotations

import os
import secrets
import sys

from skyinfra.model.home import Home
from skyinfra.stacks.files import make_private_dir, write_atomic


def folder_token(home: Home) -> str:
    """The token of agents that no server of ours knows."""
    path = make_private_dir(home.root / "keys") / "agent-token"
    if not path.exists():
        write_atomic(path, secrets.token_urlsafe(32).encode())
    return path.read_text().strip()


def main() -> None:
    if served := os.environ.get("SKYINFRA_PROVIDER_PORT"):
        print(served, flush=True)
        sys.stdin.read()
        return
    from skyinfra.stacks.provider.server import build_servicer, serve

    home = Home.from_env()
    server, port = serve(build_servicer(home, None, new_token=lambda: folder_token(home)))
    print(port, flush=True)
    sys.stdin.read()
    server.stop(grace=5).wait()


if __name__ == "__main__":
    main()
