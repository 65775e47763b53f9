"""``python -m skyinfra.stacks.provider``: the plugin process, for engines that no worker of ours drives.

Prints its port, as every Pulumi plugin does, and serves until its standard input ends.
"""

from __future__ import annotations

import sys

from skyinfra.model.home import Home
from skyinfra.stacks.provider.server import build_servicer, serve


def main() -> None:
    server, port = serve(build_servicer(Home.from_env(), agent_token=None))
    print(port, flush=True)
    sys.stdin.read()
    server.stop(grace=5).wait()


if __name__ == "__main__":
    main()
