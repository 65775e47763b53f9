"""``python -m skyinfra.testing.aws.double [--resident PORT_FILE]``: prints its port, serves, ends with its parent.

Without `--resident` it is one engine's plugin, and that engine is its parent.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from concurrent import futures
from importlib.metadata import version

import grpc
from pulumi.runtime.proto import provider_pb2_grpc

from skyinfra.testing.aws.double.servicer import Provider
from skyinfra.testing.aws.lifetime import end_with_parent, tell_port

__all__ = ["main"]


def main() -> None:
    server = grpc.server(futures.ThreadPoolExecutor(64))
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(Provider(version("pulumi_aws")), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    over = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: over.set())
    if sys.argv[1:2] == ["--resident"]:
        tell_port(sys.argv[2], port)
    end_with_parent()
    print(port, flush=True)
    over.wait()
    server.stop(0)
    os._exit(0)  # a handler that still waits for an instance must not keep the process


if __name__ == "__main__":
    main()
