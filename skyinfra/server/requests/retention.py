"""Keeps house: finished requests are kept for 30 days or 1 GiB of logs, uploads for a day after their last use."""

from __future__ import annotations

import asyncio
import time

from skyinfra.server.blobs import Blobs
from skyinfra.server.requests.log import RequestLogs
from skyinfra.server.settings import Settings
from skyinfra.store import requests as rows
from skyinfra.store.database import Database

__all__ = ["clean", "keep_house"]

EVERY_S = 3600.0
FIRST_AFTER_S = 30.0


async def keep_house(settings: Settings, db: Database, logs: RequestLogs, blobs: Blobs) -> None:
    """Clean once soon after the start, then every hour, until cancelled."""
    await asyncio.sleep(FIRST_AFTER_S)
    while True:
        await clean(settings, db, logs, blobs, time.time())
        await asyncio.sleep(EVERY_S)


async def clean(settings: Settings, db: Database, logs: RequestLogs, blobs: Blobs, now: float) -> list[str]:
    """Forget what is too old or too much, never an active request; returns the ids of the forgotten."""
    old = await db.read(lambda d: rows.finished_before(d, now - settings.retention_s))
    finished = await db.read(rows.finished_oldest_first)
    sizes = await asyncio.to_thread(logs.sizes)
    gone = [*old, *_too_much(finished, sizes, set(old), settings.retention_bytes)]
    if gone:
        await db.write(lambda d: rows.remove(d, gone))
        for request_id in gone:
            logs.remove(request_id)
    wanted = await db.read(rows.wanted_blobs)
    await asyncio.to_thread(blobs.collect, wanted, settings.blob_keep_s, now)
    return gone


def _too_much(finished: list[str], sizes: dict[str, int], gone: set[str], limit: int) -> list[str]:
    """The oldest finished requests whose logs are over the limit."""
    total = sum(size for request_id, size in sizes.items() if request_id not in gone)
    removed = []
    for request_id in finished:
        if total <= limit:
            break
        if request_id not in gone:
            total -= sizes.get(request_id, 0)
            removed.append(request_id)
    return removed
