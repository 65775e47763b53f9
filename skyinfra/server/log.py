"""structlog to standard error, which the process that starts a server points at `server.log`. One line per event.

Values wrapped in `Secret` cannot appear; keys that name a credential are left out whatever their value.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import structlog

__all__ = ["configure", "get", "tailed"]

LOOK_AGAIN_S = 0.2
CHUNK = 1 << 16

_NEVER = frozenset({"token", "authorization", "envs", "secrets", "body", "password", "task"})


def _drop_credentials(_logger: Any, _name: str, event: Any) -> Any:
    for key in _NEVER & event.keys():
        event[key] = "<left out>"
    return event


def configure() -> None:
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(name)s %(message)s")
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _drop_credentials,
            structlog.processors.format_exc_info,
            structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"]),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


def get(part: str) -> Any:
    return structlog.get_logger(part=part)


async def tailed(path: Path, lines: int | None, follow: Callable[[], bool]) -> AsyncIterator[bytes]:
    """The file's bytes, or its last `lines` lines, and while `follow()` what is appended.

    A look now and then: this process writes the file by way of a descriptor that others gave it, so nothing tells.
    """
    with path.open("rb") as file:
        if lines is not None:
            file.seek(_start_of_last(file, lines))
        while True:
            more = follow()
            while chunk := file.read(CHUNK):
                yield chunk
            if not more:
                return
            await asyncio.sleep(LOOK_AGAIN_S)


def _start_of_last(file: Any, lines: int) -> int:
    """The offset at which the last `lines` lines begin; read backwards, a log may be long."""
    end = file.seek(0, 2)
    at, found = end, 0
    while at > 0 and lines > 0:
        size = min(CHUNK, at)
        at = file.seek(at - size)
        chunk = file.read(size)
        for index in range(size - 1, -1, -1):
            if chunk[index : index + 1] == b"\n" and at + index + 1 < end:
                found += 1
                if found == lines:
                    return at + index + 1
    return end if lines <= 0 else 0
