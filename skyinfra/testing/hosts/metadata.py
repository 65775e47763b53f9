"""An instance metadata service (EC2's, version 2: a token first) for the hosts of a lab, at 169.254.169.254.

Who asks is told by the address it asks from. What a host is told is its own `metadata`, a dict that tests may change
while it runs: keys are paths under ``/latest/meta-data/`` (``instance-id``, ``spot/instance-action``, …).
"""

from __future__ import annotations

import http.server
import secrets
import socket
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from skyinfra.testing.hosts.host import Host

__all__ = ["ADDRESS", "MetadataService"]

ADDRESS = "169.254.169.254"
TOKEN = "X-aws-ec2-metadata-token"


class MetadataService:
    """Serves on a socket that listens already, until `close`."""

    def __init__(self, listening: socket.socket, host_at: Callable[[str], Host | None]) -> None:
        tokens: set[str] = set()

        class Handler(_Handler):
            known_tokens = tokens
            find_host = staticmethod(host_at)

        self._http = http.server.ThreadingHTTPServer(listening.getsockname(), Handler, bind_and_activate=False)
        self._http.socket.close()
        self._http.socket = listening
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


class _Handler(http.server.BaseHTTPRequestHandler):
    known_tokens: set[str]
    find_host: Callable[[str], Host | None]

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_PUT(self) -> None:
        if self.path != "/latest/api/token":
            return self._say(404)
        if not self.headers.get(f"{TOKEN}-ttl-seconds", "").isdigit():
            return self._say(400)
        token = secrets.token_urlsafe(24)
        self.known_tokens.add(token)
        return self._say(200, token)

    def do_GET(self) -> None:
        host = self.find_host(self.client_address[0])
        if host is None:
            return self._say(404)
        if self.headers.get(TOKEN) not in self.known_tokens:
            return self._say(401)
        path = self.path.removeprefix("/latest/")
        if path == "user-data":
            return self._say(200, host.user_data) if host.user_data else self._say(404)
        value = host.metadata.get(path.removeprefix("meta-data/")) if path.startswith("meta-data/") else None
        return self._say(200, value) if value is not None else self._say(404)

    def _say(self, status: int, text: str = "") -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
