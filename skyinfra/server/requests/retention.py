"""Keeps house: finished requests are kept for 30 days or 1 GiB of logs, uploads for a day after their last use,
operation folders as long as their request, the history of a cluster that is gone for a year."""

from __future__ import annotations

import asyncio
import shutil
import time

from skyinfra.model.home import Home
from skyinfra.server.blobs import Blobs
from skyinfra.server.requests.log import RequestLogs
from skyinfra.server.settings import Settings
from skyinfra.store import operations, updates
from skyinfra.store import requests as rows
from skyinfra.store.database import Database

__all__ = ["clean", "keep_house"]

EVERY_S = 3600.0
FIRST_AFTER_S = 30.0
FOLDER_KEEP_S = 600.0


async def keep_house(settings: Settings, db: Database, logs: RequestLogs, blobs: Blobs) -> None:
    """Clean once soon after the start, then every hour, until cancelled."""
    await asyncio.sleep(FIRST_AFTER_S)
    while True:
        await clean(settings, db, logs, blobs, time.time())
        await asyncio.sleep(EVERY_S)


async def clean(settings: Settings, db: Database, logs: RequestLogs, blobs: Blobs, now: float) -> list[str]:
    """Forget what is too old or too much, never an active request; returns the ids of the forgotten."""
    old = await db.read(lambda d: rows.finished_before(d, now - settings.retention_s))
    sizes = await asyncio.to_thread(logs.sizes)
    over = sum(sizes.values()) > settings.retention_bytes
    finished = await db.read(rows.finished_oldest_first) if over else []
    gone = [*old, *_too_much(finished, sizes, set(old), settings.retention_bytes)]
    if gone:
        await db.write(lambda d: rows.remove(d, gone))
        for request_id in gone:
            logs.remove(request_id)
    wanted = await db.read(rows.wanted_blobs)
    await asyncio.to_thread(blobs.collect, wanted, settings.blob_keep_s, now)
    await db.write(lambda d: updates.forget_before(d, now - settings.history_s))
    known = await db.read(operations.all_ids)
    await asyncio.to_thread(_forget_folders, settings.home, known, now - FOLDER_KEEP_S)
    return gone


def _forget_folders(home: Home, known: set[str], before: float) -> None:
    """A folder is written after its row, so one without a row is over; the time is for a row not yet seen by us."""
    if home.operations.is_dir():
        for path in home.operations.iterdir():
            if path.name not in known and path.stat().st_mtime < before:
                shutil.rmtree(path, ignore_errors=True)


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
