"""Channel kind ``ssh``: to an agent's unix socket on a machine that is reached over SSH, through the tunnel process.

``{"kind": "ssh", "cloud", "machine", "socket"}`` names the machine; the address, login and password are looked up each
time by what the cloud gave to `configure`, because addresses change and passwords do not belong in a state.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx2

from skyinfra.channels import Unreachable
from skyinfra.channels.ssh_target import SshFailed, SshTarget
from skyinfra.channels.tunnel_client import TunnelClient, TunnelFailed
from skyinfra.model.home import Home

__all__ = ["Locate", "configure", "local_socket", "open"]

Locate = Callable[[dict[str, Any]], SshTarget]
"""Where the machine of a channel is now. May block; raises `SshFailed`."""


class _Ways:
    """Of this process: set once, where the real parts are put together."""

    tunnel: TunnelClient | None = None
    locate: Locate | None = None


def configure(home: Home, locate: Locate) -> TunnelClient:
    """Say whose tunnel is used, and how machines are found. Starts nothing yet."""
    _Ways.tunnel, _Ways.locate = TunnelClient(home), locate
    return _Ways.tunnel


def key_of(channel: dict[str, Any]) -> str:
    """Names a route: the same machine and socket, wherever the machine is."""
    return "\n".join((channel.get("cloud", ""), channel["machine"], channel["socket"]))


def local_socket(channel: dict[str, Any]) -> str:
    """A unix socket here that leads to the agent; blocking. Raises `Unreachable`."""
    tunnel, locate = _Ways.tunnel, _Ways.locate
    if tunnel is None or locate is None:
        raise Unreachable("this process was not told how machines are found over SSH")
    try:
        return tunnel.route(key_of(channel), locate(channel), channel["socket"])
    except (SshFailed, TunnelFailed) as exc:
        raise Unreachable(str(exc)) from exc


async def open(node: dict[str, Any]) -> httpx2.AsyncBaseTransport:  # the name is the contract of kinds
    """Raises `Unreachable` when the machine is not known any more, or the tunnel does not run."""
    return _SshTransport(node["channel"], await asyncio.to_thread(local_socket, node["channel"]))


class _SshTransport(httpx2.AsyncBaseTransport):
    """HTTP over the route's socket; brings the tunnel back, and gives failures the reason that the tunnel knows."""

    def __init__(self, channel: dict[str, Any], path: str) -> None:
        self._channel = channel
        self._inner = httpx2.AsyncHTTPTransport(uds=path, verify=False)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        try:
            return await self._inner.handle_async_request(request)
        except httpx2.ConnectError:  # nobody listens here: the tunnel died, or gave up an idle route. Nothing was sent
            await self._renew(request)
            return await self._inner.handle_async_request(request)
        except httpx2.TransportError as exc:
            if isinstance(exc, httpx2.TimeoutException):
                raise
            if (reason := await self._why()) is not None:
                raise httpx2.ConnectError(reason, request=request) from exc
            raise

    async def _renew(self, request: httpx2.Request) -> None:
        try:
            await asyncio.to_thread(local_socket, self._channel)  # at the same path as before
        except Unreachable as exc:
            raise httpx2.ConnectError(exc.reason, request=request) from exc

    async def _why(self) -> str | None:
        tunnel = _Ways.tunnel
        try:
            return await asyncio.to_thread(tunnel.why, key_of(self._channel)) if tunnel is not None else None
        except TunnelFailed as exc:
            return str(exc)

    async def aclose(self) -> None:
        await self._inner.aclose()
