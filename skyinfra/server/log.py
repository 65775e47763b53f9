"""structlog to standard error, which the process that starts a server points at `server.log`. One line per event.

Values wrapped in `Secret` cannot appear; keys that name a credential are left out whatever their value.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog

__all__ = ["configure", "get"]

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
