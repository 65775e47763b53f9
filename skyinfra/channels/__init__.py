"""Ways to reach a node's agent, and the client that speaks its wire over any of them.

`open_channel` turns a node's ``channel`` output into an HTTP transport; `AgentClient` does the rest. Kinds: ``local``
(a unix socket of this host). Same HTTP over all. Refuses to retry: whoever calls knows what may be repeated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import httpx2

__all__ = ["AgentClient", "AgentError", "Unreachable", "connect", "open_channel"]


class Unreachable(Exception):
    """Nobody answers at the other end of the channel; the node may well run."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the node's agent cannot be reached: {reason}")
        self.reason = reason


async def open_channel(node: dict[str, Any]) -> httpx2.AsyncBaseTransport:
    """A transport to the agent of this node (an entry of the stack's ``nodes``); the host in URLs is ``agent``.

    Raises `Unreachable` when the node has no channel (it is stopped) or one of a kind this release does not know.
    """
    import httpx2  # here: importing this package must stay cheap for those who only want the names

    channel = node.get("channel")
    if not channel:
        raise Unreachable("the node is stopped")
    if channel.get("kind") == "local":
        # No TLS on a unix socket: `verify` would load the host's certificates for each channel, 43 ms of event loop.
        return httpx2.AsyncHTTPTransport(uds=channel["socket"], verify=False)
    raise Unreachable(f"no channel of kind {channel.get('kind')!r} here")


async def connect(node: dict[str, Any], token: str) -> AgentClient:
    """A client for the agent of this node. Raises `Unreachable`."""
    return AgentClient(await open_channel(node), token)


from skyinfra.channels.agent_client import AgentClient, AgentError  # noqa: E402 - it needs `Unreachable`
