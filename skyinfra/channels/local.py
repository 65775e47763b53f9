"""Channel kind ``local``: a unix socket on this host."""

from __future__ import annotations

import http.client
import json
import socket
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import httpx2

__all__ = ["UnixConnection", "open", "probe_health"]


async def open(node: dict[str, Any]) -> httpx2.AsyncBaseTransport:
    """A transport to the agent that listens on the channel's socket."""
    import httpx2  # here: the provider, which only probes, needs none

    # No TLS on a unix socket: `verify` would load the host's certificates for each channel, 43 ms of event loop.
    return httpx2.AsyncHTTPTransport(uds=node["channel"]["socket"], verify=False)


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket, for callers without an event loop."""

    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("agent", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(self.timeout)
        try:
            connection.connect(self._path)
        except BaseException:
            connection.close()
            raise
        self.sock = connection


def probe_health(channel: dict[str, Any], token: str, timeout_s: float) -> dict[str, Any] | None:
    """What ``GET /v1/health`` answers, or None when nobody does, or not as an agent would."""
    connection = UnixConnection(channel["socket"], timeout_s)
    try:
        connection.request("GET", "/v1/health", headers={"Authorization": f"Bearer {token}"})
        response = connection.getresponse()
        body = response.read()
        return json.loads(body) if response.status == 200 else None
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()
