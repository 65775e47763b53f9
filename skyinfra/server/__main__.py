"""``python -m skyinfra.server``: flags, the lock, and the one line on the ready descriptor."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys

from skyinfra.server import log as server_log
from skyinfra.server.process import EXIT_OTHER_SERVER, Owned, serve, take_lock
from skyinfra.server.settings import Settings


def main(argv: list[str] | None = None) -> int:
    flags = _flags().parse_args(argv)
    try:
        settings = Settings.build(host=flags.host, port=flags.port, deploy=flags.deploy)
    except ValueError as error:
        return _refuse(flags.ready_fd, str(error), 1)
    os.umask(0o077)
    os.environ["SKYINFRA_HOME"] = str(settings.home.root)
    server_log.configure()
    try:
        take_lock(settings.home)
    except Owned as error:
        return _refuse(flags.ready_fd, str(error), EXIT_OTHER_SERVER)
    try:
        asyncio.run(serve(settings, lambda port: _tell(flags.ready_fd, f"ready {port}\n")))
    except (OSError, RuntimeError, ValueError) as error:
        server_log.get("server").error("the server cannot go on", exc_info=error)
        return _refuse(flags.ready_fd, str(error), 1)
    return 0


def _flags() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="skyinfra.server", description="The skyinfra API server.")
    parser.add_argument("--host", default=None, help="address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=int, default=None, help="port; the next free one when it is taken (46590)")
    parser.add_argument("--ready-fd", type=int, default=None, help="descriptor that gets one line when it listens")
    parser.add_argument(
        "--deploy", action="store_true", help="for a team: on all interfaces, on that port or not at all"
    )
    parser.add_argument("--foreground", action="store_true", help="stay attached to this terminal")
    return parser


def _refuse(descriptor: int | None, why: str, code: int) -> int:
    print(f"error: {why}", file=sys.stderr)
    _tell(descriptor, f"error {why}\n")
    return code


def _tell(descriptor: int | None, line: str) -> None:
    """Once: the reader waits for the end of the pipe as well."""
    if descriptor is None:
        return
    try:
        os.write(descriptor, line.replace("\n", " ").rstrip().encode() + b"\n")
        os.close(descriptor)
    except OSError:
        pass  # told already, or nobody waits any more


if __name__ == "__main__":
    sys.exit(main())
