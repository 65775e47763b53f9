"""Lanes: one writer per cluster, first come first served. In memory: the order of the rows restores them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

__all__ = ["Lanes"]

LaneKey = tuple[str, str]
"""Workspace and exact cluster name."""


class Lanes:
    """Who holds which lane, and who waits for it."""

    def __init__(self) -> None:
        self._queues: dict[LaneKey, deque[tuple[str, asyncio.Future[None]]]] = {}

    def holder(self, key: LaneKey) -> str | None:
        queue = self._queues.get(key)
        return queue[0][0] if queue else None

    def held(self) -> dict[LaneKey, list[str]]:
        """Request ids by lane, the holder first."""
        return {key: [request_id for request_id, _ in queue] for key, queue in self._queues.items()}

    @asynccontextmanager
    async def hold(self, key: LaneKey, request_id: str, on_wait: Callable[[str], None]) -> AsyncIterator[None]:
        """Wait for the turn; `on_wait(holder)` is called once when there is somebody to wait for."""
        queue = self._queues.setdefault(key, deque())
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (request_id, turn)
        queue.append(entry)
        try:
            if queue[0] is not entry:
                on_wait(queue[0][0])
                await turn
            yield
        finally:
            self._leave(key, entry)

    def _leave(self, key: LaneKey, entry: tuple[str, asyncio.Future[None]]) -> None:
        queue = self._queues[key]
        was_first = queue[0] is entry
        queue.remove(entry)
        if not queue:
            del self._queues[key]
        elif was_first and not queue[0][1].done():
            queue[0][1].set_result(None)
