"""The log of each request: one NDJSON file, appended by the server, followed by clients from any byte offset."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from skyinfra.server import log as server_log
from skyinfra.server.vault import private_folder

__all__ = ["RequestLogs"]

CHUNK = 65536
_say = server_log.get("requests.log")


class RequestLogs:
    """Owns the folder of request logs. Only the event loop's thread may call it."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        self._folder = private_folder(folder)
        self._clock = clock
        self._followers: dict[str, set[asyncio.Event]] = {}

    def path(self, request_id: str) -> Path:
        return self._folder / f"{request_id}.jsonl"

    def append(self, request_id: str, kind: str, **fields: Any) -> None:
        """Write one line and wake who follows. A full disk costs the line, not the request, and is said."""
        line = (
            json.dumps({"at": round(self._clock(), 3), "kind": kind, **fields}, separators=(",", ":")).encode() + b"\n"
        )
        try:
            descriptor = os.open(self.path(request_id), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                os.write(descriptor, line)
            finally:
                os.close(descriptor)
        except OSError as error:
            _say.error("a line of a request's log is lost", request=request_id, error=str(error))
        self.wake(request_id)

    def wake(self, request_id: str) -> None:
        for event in self._followers.get(request_id, ()):
            event.set()

    def wake_all(self) -> None:
        for request_id in self._followers:
            self.wake(request_id)

    def ensure_end(self, request_id: str, status: str) -> None:
        """A final request's last line is `end`, also when the server died between the state and the line."""
        path = self.path(request_id)
        try:
            with path.open("rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - 4096))
                last = file.read().rstrip(b"\n").rpartition(b"\n")[2]
            ended = json.loads(last).get("kind") == "end"
        except (FileNotFoundError, ValueError):  # no line yet, or one torn by a full disk
            ended = False
        if not ended:
            self.append(request_id, "end", status=status)

    async def follow(
        self, request_id: str, offset: int, live: Callable[[], bool], follow: bool = True
    ) -> AsyncIterator[bytes]:
        """Bytes from `offset` on; with `follow`, until `live()` is false and everything was sent."""
        woken = asyncio.Event()
        self._followers.setdefault(request_id, set()).add(woken)
        try:
            while True:
                woken.clear()
                more = live()
                while chunk := self._read(request_id, offset):
                    offset += len(chunk)
                    yield chunk
                if not (follow and more):
                    return
                await woken.wait()
        finally:
            waiting = self._followers[request_id]
            waiting.discard(woken)
            if not waiting:
                del self._followers[request_id]

    def _read(self, request_id: str, offset: int) -> bytes:
        try:
            descriptor = os.open(self.path(request_id), os.O_RDONLY)
        except FileNotFoundError:
            return b""
        try:
            return os.pread(descriptor, CHUNK, offset)
        finally:
            os.close(descriptor)

    def remove(self, request_id: str) -> None:
        self.path(request_id).unlink(missing_ok=True)

    def sizes(self) -> dict[str, int]:
        """Bytes by request id."""
        return {path.stem: path.stat().st_size for path in self._folder.glob("*.jsonl")}
