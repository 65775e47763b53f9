"""What an operation is doing: one live line per resource on a terminal, plain lines elsewhere.

Fed with the events of a request's stream. On a terminal the block of unfinished resources is redrawn in place, each
with how long it has taken; what is done moves up and stays. Without one, each change is a line of its own.
"""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Callable
from typing import IO, Any

from skyinfra.cli import out
from skyinfra.cli.text import duration, shortened

__all__ = ["Painter"]

REDRAW_S = 0.2
_DOING = {"create": "making", "delete": "removing", "update": "changing", "replace": "replacing", "read": "reading"}
_STEPS = {
    "plan": "planning",
    "place": "choosing a place",
    "provision": "provisioning",
    "sync": "sending files to the nodes",
    "submit": "submitting the job",
    "drain": "waiting for the agent to take no more jobs",
    "destroy": "removing",
}
_DONE = {"create": "made", "delete": "removed", "update": "changed", "replace": "replaced", "read": "read"}


class Painter:
    """Use as a context manager around the stream; `show` each event. Safe from two threads: the lock guards the block
    of live lines, which the ticking thread redraws while the other waits for events."""

    def __init__(self, stream: IO[str] | None = None, clock: Callable[[], float] = time.time) -> None:
        self._stream = stream or sys.stderr
        self._clock = clock
        self._live = out.is_terminal(self._stream)
        self._lock = threading.Lock()
        self._running: dict[str, dict[str, Any]] = {}
        self._drawn = 0
        self._over = threading.Event()
        self._ticker: threading.Thread | None = None

    def __enter__(self) -> Painter:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._over.set()
        if self._ticker is not None:
            self._ticker.join()
        with self._lock:
            self._erase()
            self._stream.flush()

    def show(self, event: dict[str, Any]) -> None:
        kind = event.get("kind")
        with self._lock:
            self._erase()
            if kind == "log":
                self._print(str(event.get("text", "")).rstrip("\n"))
            elif kind == "resource":
                self._resource(event)
            elif kind == "step" and self._live:
                self._step(event)
            self._draw()
            self._stream.flush()

    def _step(self, event: dict[str, Any]) -> None:
        """A step of the request is worth a live line while it lasts, and none afterwards."""
        name = f"step {event.get('name')}"
        if event.get("state") == "began":
            self._running[name] = {"name": event.get("name"), "op": "step", "began": self._clock()}
            self._start_ticking()
        else:
            self._running.pop(name, None)

    def _start_ticking(self) -> None:
        if self._ticker is None:
            self._ticker = threading.Thread(target=self._tick, daemon=True)
            self._ticker.start()

    def _resource(self, event: dict[str, Any]) -> None:
        urn = event.get("urn") or event.get("name") or "?"
        state = event.get("state")
        if state == "began":
            self._running[urn] = {**event, "began": self._clock()}
            if not self._live:
                self._print(self._doing(event))
            else:
                self._start_ticking()
            return
        before = self._running.pop(urn, None)
        took = f" ({duration(self._clock() - before['began'])})" if before else ""
        text = f": {event['text']}" if event.get("text") else ""
        if state == "failed":
            self._print(out.colour("✗", "red", self._stream) + f" {_named(event)} failed{text}{took}")
        elif state == "done" and event.get("op") not in ("same", None):
            word = _DONE.get(event["op"], event["op"])
            self._print(out.colour("✓", "green", self._stream) + f" {_named(event)} {word}{took}")

    def _doing(self, event: dict[str, Any]) -> str:
        if event.get("op") == "step":
            step, _, number = str(event.get("name")).partition("#")
            again = f", attempt {int(number) + 1}" if number.isdigit() and number != "0" else ""
            return f"… {_STEPS.get(step, step)}{again}"
        word = _DOING.get(event.get("op", ""), event.get("op") or "working on")
        waits = f": {event['text']}" if event.get("text") else ""
        return f"… {_named(event)} {word}{waits}"

    def _tick(self) -> None:
        while not self._over.wait(REDRAW_S):
            with self._lock:
                self._erase()
                self._draw()
                self._stream.flush()

    def _print(self, line: str) -> None:
        self._stream.write(line + "\n")

    def _draw(self) -> None:
        if not self._live:
            return
        size = shutil.get_terminal_size()
        lines = list(self._running.values())[: max(1, size.lines - 2)]
        for event in lines:
            took = duration(self._clock() - event["began"])
            self._print(shortened(f"{self._doing(event)} ({took})", size.columns - 1))
        self._drawn = len(lines)

    def _erase(self) -> None:
        if self._drawn:
            self._stream.write(f"\033[{self._drawn}A\033[J")
            self._drawn = 0


def _named(event: dict[str, Any]) -> str:
    kind = str(event.get("type") or "").rpartition(":")[2].lower()
    return f"{kind} {event.get('name') or event.get('urn')}".strip()
