"""The worker: one process, own session, one operation. ``python -m skyinfra.stacks.worker``.

Reads two lines from standard input: ``{"request": …, "env": {…}}`` and the secrets as one JSON object. Until they come
it is a spare: Pulumi imported, nothing else; it ends when its input ends, or after `SPARE_IDLE_S`. Writes
``events.jsonl`` as things happen and ``result.json`` last. Ignores SIGINT; SIGTERM cancels. It outlives the server.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import threading
import time
import traceback
from typing import Any

from skyinfra.model.home import Home
from skyinfra.runtime.boundary import boundary
from skyinfra.stacks.clouds.failures import CloudError
from skyinfra.stacks.engine import EngineUnavailable, ensure_engine
from skyinfra.stacks.events import Told
from skyinfra.stacks.folder import EventLog, OperationFolder
from skyinfra.stacks.operation import OperationEvent, OperationRequest, OperationResult
from skyinfra.stacks.processes import me
from skyinfra.stacks.settings import BadSetting

__all__ = ["main"]

SPARE_IDLE_S = 300.0
#: Of one event: a diagnostic may quote a whole provider's answer, and a reader reads by lines.
MAX_TEXT = 16_384


class _Worker:
    """The operation's state in this process; `cancel` is the SIGTERM handler's part."""

    def __init__(self, home: Home, request: OperationRequest) -> None:
        self._home = home
        self._request = request
        self._folder = OperationFolder(home, request.id)
        self._log = EventLog(self._folder.path / "events.jsonl", sys.stdout.buffer)
        self._seq = max((event.seq for event in self._folder.events()), default=0)
        self._guard = threading.Lock()  # guards _seq and _log: events come from the engine's threads and from ours
        self._operations: Any = None
        self._cancelled = False

    def cancel(self, *_: Any) -> None:
        self._cancelled = True
        if self._operations is not None:
            self._operations.interrupt()

    def tell(self, told: Told) -> None:
        text = told.text[:MAX_TEXT]
        with self._guard:
            self._seq += 1
            self._log.append(OperationEvent(self._seq, time.time(), told.kind, told.urn, told.op, text))

    def run(self, secrets: dict[str, str]) -> OperationResult:
        self._folder.write_worker(me())
        self.tell(Told("start", op=self._request.kind, text=self._request.stack))
        boundary("worker.start.before")
        result = self._perform(secrets)
        self._folder.write_result(result)
        self.tell(Told("end", op=result.outcome, text=result.message))
        self._log.close()
        return result

    def _perform(self, secrets: dict[str, str]) -> OperationResult:
        from skyinfra.stacks.operations import Operations

        fence = self._request.fence
        try:
            engine = ensure_engine(lambda text: self.tell(Told("diagnostic", op="info", text=text)))
            token = secrets.get("agent_token")
            self._operations = Operations(self._home, engine, self._request, self._folder.project, token, self.tell)
            if self._cancelled:
                return OperationResult("cancelled", fence, message="it was cancelled before it began")
            return self._operations.run()
        except (EngineUnavailable, BadSetting) as exc:
            return OperationResult("failed", fence, "user", str(exc))
        except CloudError as exc:
            return OperationResult("failed", fence, exc.kind, exc.words)
        except Exception as exc:  # the outermost frame: the server must get a result, and the log the whole chain
            return OperationResult("failed", fence, "ours", f"{type(exc).__name__}: {exc}", traceback.format_exc())


def _read_lines() -> tuple[bytes, bytes] | None:
    """Both lines, or None when the pipe ended or nobody needed us. Unbuffered: select must see every byte."""
    data = b""
    deadline = time.monotonic() + SPARE_IDLE_S
    while data.count(b"\n") < 2:
        if not data and not select.select([0], [], [], max(0.0, deadline - time.monotonic()))[0]:
            return None
        chunk = os.read(0, 1 << 16)
        if not chunk:
            return None
        data += chunk
    first, second, *_ = data.split(b"\n")
    return first, second


def main() -> int:
    """0 = a result was written, whatever it says."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    import skyinfra.stacks.operations  # noqa: F401 - the slow part, while we are still a spare

    lines = _read_lines()
    if lines is None:
        return 0
    message = json.loads(lines[0])
    os.environ.update(message.get("env") or {})
    worker = _Worker(Home.from_env(), OperationRequest.from_json(message["request"]))
    signal.signal(signal.SIGTERM, worker.cancel)
    worker.run(json.loads(lines[1]))
    sys.stdout.flush()
    os._exit(0)  # all is on disk; tearing down grpc and Pulumi would cost the caller 40 ms


if __name__ == "__main__":
    sys.exit(main())
