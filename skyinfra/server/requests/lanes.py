"""Lanes: one writer per cluster, first come first served. In memory: the order of the rows restores them."""

from __future__ import annotations

import asyncio
from collections import deque

__all__ = ["LaneKey", "Lanes", "Turn"]

LaneKey = tuple[str, str]
"""Workspace and exact cluster name."""


class Turn:
    """A place in a lane, kept until `leave`: also through the cleaning up after a cancel."""

    def __init__(self, lanes: Lanes, key: LaneKey, request_id: str) -> None:
        self.request_id = request_id
        self._lanes = lanes
        self._key = key
        self._come = asyncio.Event()

    def call(self) -> None:
        self._come.set()

    @property
    def waits_for(self) -> str | None:
        """The holder of the lane, or None when that is us."""
        holder = self._lanes.holder(self._key)
        return None if holder == self.request_id else holder

    async def come(self) -> None:
        """Returns when the lane is ours. Being cancelled here does not give up the place."""
        await self._come.wait()

    def leave(self) -> None:
        self._lanes.leave(self._key, self)


class Lanes:
    """Who holds which lane, and who waits for it."""

    def __init__(self) -> None:
        self._queues: dict[LaneKey, deque[Turn]] = {}

    def holder(self, key: LaneKey) -> str | None:
        queue = self._queues.get(key)
        return queue[0].request_id if queue else None

    def held(self) -> dict[LaneKey, list[str]]:
        """Request ids by lane, the holder first."""
        return {key: [turn.request_id for turn in queue] for key, queue in self._queues.items()}

    def join(self, key: LaneKey, request_id: str) -> Turn:
        """The last place in the lane."""
        queue = self._queues.setdefault(key, deque())
        turn = Turn(self, key, request_id)
        queue.append(turn)
        queue[0].call()
        return turn

    def leave(self, key: LaneKey, turn: Turn) -> None:
        queue = self._queues[key]
        queue.remove(turn)
        if queue:
            queue[0].call()
        else:
            del self._queues[key]
