"""The operation folder on disk: who writes which file, and how. `operation` has the types.

`OperationStore` is what a shared store would have to offer instead. No Pulumi here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import IO, Protocol

from skyinfra.model.home import Home
from skyinfra.runtime.boundary import boundary
from skyinfra.stacks.files import make_private_dir, read_json, write_json
from skyinfra.stacks.operation import OperationEvent, OperationRequest, OperationResult
from skyinfra.stacks.processes import Identity

__all__ = ["EventLog", "OperationFolder", "OperationStore"]


class OperationStore(Protocol):
    """Where one operation is described, and where its worker answers."""

    def write_request(self, request: OperationRequest) -> None: ...
    def write_worker(self, worker: Identity) -> None: ...
    def write_result(self, result: OperationResult) -> None: ...
    def request(self) -> OperationRequest | None: ...
    def worker(self) -> Identity | None: ...
    def result(self) -> OperationResult | None: ...
    def events(self, after: int = 0) -> Iterator[OperationEvent]: ...


class OperationFolder:
    """``operations/<id>/``."""

    def __init__(self, home: Home, operation_id: str) -> None:
        if "/" in operation_id or operation_id.startswith("."):
            raise ValueError(f"not an operation id: {operation_id!r}")
        self.path = home.operations / operation_id

    @property
    def project(self) -> Path:
        """The engine's working folder; removed when the operation ends."""
        return self.path / "project"

    def write_request(self, request: OperationRequest) -> None:
        """A request with a newer fence starts over: what an older attempt left is removed first."""
        make_private_dir(self.path)
        for name in ("result.json", "worker.json", "events.jsonl"):
            (self.path / name).unlink(missing_ok=True)
        write_json(self.path / "request.json", request.to_json())

    def write_worker(self, worker: Identity) -> None:
        write_json(self.path / "worker.json", worker.to_json())

    def write_result(self, result: OperationResult) -> None:
        boundary("worker.result.before")
        write_json(self.path / "result.json", result.to_json())
        boundary("worker.result.recorded")

    def request(self) -> OperationRequest | None:
        value = read_json(self.path / "request.json")
        return None if value is None else OperationRequest.from_json(value)

    def worker(self) -> Identity | None:
        value = read_json(self.path / "worker.json")
        return None if value is None else Identity.from_json(value)

    def result(self) -> OperationResult | None:
        value = read_json(self.path / "result.json")
        return None if value is None else OperationResult.from_json(value)

    def events(self, after: int = 0) -> Iterator[OperationEvent]:
        """Events with `seq` > `after`; a last line that is torn is not there yet."""
        try:
            text = (self.path / "events.jsonl").read_bytes()
        except FileNotFoundError:
            return
        for line in text.split(b"\n")[:-1]:
            event = OperationEvent(**json.loads(line))
            if event.seq > after:
                yield event


class EventLog:
    """Appends to ``events.jsonl``, each line flushed; mirrors it to a pipe while somebody reads there."""

    def __init__(self, path: Path, mirror: IO[bytes] | None) -> None:
        self._file = path.open("ab")
        self._mirror = mirror

    def append(self, event: OperationEvent) -> None:
        line = json.dumps(asdict(event)).encode() + b"\n"
        self._file.write(line)
        self._file.flush()
        if self._mirror is not None:
            try:
                self._mirror.write(line)
                self._mirror.flush()
            except OSError:
                self._mirror = None  # the server is gone; the file stays the truth

    def close(self) -> None:
        self._file.close()
