"""Ways to reach a node's agent, and the client that speaks its wire over any of them.

`open_channel` turns a node's ``channel`` output into an HTTP transport; `AgentClient` does the rest. Kinds: ``local``
(a unix socket of this host) and ``ssh`` (one of another host, through the tunnel process). Same HTTP over all. Refuses
to retry: whoever calls knows what may be repeated.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import httpx2

__all__ = ["AgentClient", "AgentError", "Unreachable", "connect", "open_channel", "warm"]


KINDS = ("local", "ssh")
"""A kind is a module here with ``async open(node) -> httpx2.AsyncBaseTransport``, which raises `Unreachable`."""


class Unreachable(Exception):
    """Nobody answers at the other end of the channel; the node may well run."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the node's agent cannot be reached: {reason}")
        self.reason = reason


async def open_channel(node: dict[str, Any]) -> httpx2.AsyncBaseTransport:
    """A transport to the agent of this node (an entry of the stack's ``nodes``); the host in URLs is ``agent``.

    Raises `Unreachable` when the node has no channel (it is stopped) or one of a kind this release does not know.
    """
    channel = node.get("channel")
    if not channel:
        raise Unreachable("the node is stopped")
    if channel.get("kind") not in KINDS:
        raise Unreachable(f"no channel of kind {channel.get('kind')!r} here")
    # Here: importing this package must stay cheap for those who only want the names.
    return await importlib.import_module(f"skyinfra.channels.{channel['kind']}").open(node)


def warm() -> None:
    """Import what the first channel needs: 0.2 s that would otherwise be the event loop's. For a thread."""
    importlib.import_module("httpx2")
    importlib.import_module("httpcore2")


async def connect(node: dict[str, Any], token: str) -> AgentClient:
    """A client for the agent of this node. Raises `Unreachable`."""
    return AgentClient(await open_channel(node), token)


from skyinfra.channels.agent_client import AgentClient, AgentError  # noqa: E402 - it needs `Unreachable`
