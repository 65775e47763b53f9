"""Ending tasks for certain: a cancel may be swallowed on the way, so it is repeated until the task has ended."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

__all__ = ["end_tasks"]

CANCEL_AGAIN_S = 0.2


async def end_tasks(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel them and wait until each has ended, whatever it raised.

    `asyncio.wait_for` and some libraries lose a cancel that comes just when what they wait for is done; one cancel and
    a `gather` then wait for ever.
    """
    left = {task for task in tasks if not task.done()}
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=CANCEL_AGAIN_S)
