"""Follow a request's log: NDJSON events, by byte offset, through broken connections and server restarts.

Only whole lines count towards the offset, so a line cut by a dying server is asked for again and none is given twice.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

from skyinfra.client import transport

__all__ = ["events"]

PAUSE_S = 0.1
LONGEST_PAUSE_S = 2.0


def events(request_id: str, follow: bool = True) -> Iterator[dict[str, Any]]:
    """The events of a request from its beginning, up to and with ``end`` (or to what there is now, without `follow`).

    Raises like `transport.call`; an unknown request is a `RuntimeError`.
    """
    offset = 0
    pause_s = PAUSE_S
    while True:
        where = transport.path("requests", request_id, "stream", offset=offset, follow=int(follow))
        began = offset
        try:
            with transport.open_stream(where, patient=True) as stream:
                for line in _lines(stream):
                    offset += len(line)
                    event = json.loads(line)
                    yield event
                    if event.get("kind") == "end":
                        return
            if not follow:
                return
        except ConnectionError:
            pass  # the next round continues at `offset`
        pause_s = PAUSE_S if offset > began else min(pause_s * 2, LONGEST_PAUSE_S)
        time.sleep(pause_s)


def _lines(stream: transport.Stream) -> Iterator[bytes]:
    """Whole lines with their ends; a piece without an end is dropped with the connection."""
    rest = b""
    for chunk in stream.chunks():
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line + b"\n"
