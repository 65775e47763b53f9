"""One run of the engine's CLI, with all that it calls back: the inline program, the event log, our provider.

Language host, event sink and provider are three services of one gRPC server in this process, made for this call and
gone after it, so a `Cancel` can only come from this engine. Interrupting is one SIGINT, ever: a second makes the engine
drop what it knows of pending creates. Past the deadline, or `CANCEL_GRACE_S` after the interrupt, its group is killed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent import futures
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import empty_pb2
from pulumi.automation._server import LanguageServer  # the part of the automation API that runs an inline program
from pulumi.runtime.proto import events_pb2_grpc, language_pb2_grpc

from skyinfra.stacks import processes
from skyinfra.stacks.events import Summary, Told, translate
from skyinfra.stacks.provider.server import GRPC_OPTIONS, MAX_HANDLERS, add_provider
from skyinfra.stacks.provider.servicer import Servicer

__all__ = ["CANCEL_GRACE_S", "EngineCall", "Outcome", "ends_at"]

CANCEL_GRACE_S = 10.0
HANDLERS_GRACE_S = 5.0
LOOK_S = 0.1


@dataclass(frozen=True)
class Outcome:
    """How the call ended. `interrupted`: we asked it to stop; `killed`: and it did not in time."""

    code: int
    stdout: str
    stderr: str
    summary: Summary
    interrupted: bool = False
    killed: bool = False
    late: bool = False

    @property
    def ok(self) -> bool:
        return self.code == 0 and not self.killed


class _Events(events_pb2_grpc.EventsServicer):
    def __init__(self, on_event: Callable[[dict[str, Any]], None]) -> None:
        self._on_event = on_event

    def StreamEvents(self, request_iterator: Any, context: Any) -> Any:
        for request in request_iterator:
            self._on_event(json.loads(request.event))
        return empty_pb2.Empty()


def ends_at(deadline: float | None) -> float | None:
    """A deadline (since the epoch) on the monotonic clock, which no correction of the time of day moves."""
    return None if deadline is None else time.monotonic() + deadline - time.time()


class EngineCall:
    """Built, run once. `interrupt` may come from a signal handler or another thread at any time."""

    def __init__(
        self,
        engine: Path,
        cwd: Path,
        env: dict[str, str],
        tell: Callable[[Told], None],
        ends_at: float | None = None,
        stop_on: Callable[[Summary], bool] = lambda _: False,
    ) -> None:
        self._engine = engine
        self._cwd = cwd
        self._env = env
        self._tell = tell
        self._ends_at = ends_at
        self._stop_on = stop_on
        self._process: subprocess.Popen[str] | None = None
        self._interrupted_at: float | None = None
        self._signalled = False
        self._guard = (
            threading.RLock()
        )  # guards the one SIGINT; re-entrant: the signal handler may interrupt its holder

    def interrupt(self) -> None:
        """Ask the engine to stop; the second time, and after its end, nothing happens."""
        with self._guard:
            if self._interrupted_at is None:
                self._interrupted_at = time.monotonic()
            if self._process is not None and not self._signalled and self._process.returncode is None:
                self._signalled = True
                os.kill(self._process.pid, signal.SIGINT)

    def plain(self, words: list[str]) -> Outcome:
        """A command that runs no program and reports no events (``stack init``, ``stack import``, ``cancel``)."""
        return self._run([str(self._engine), *words, "--non-interactive"], self._env, Summary(), lambda: None)

    def update(self, words: list[str], program: Callable[[], None], servicer: Servicer, preview: bool) -> Outcome:
        """A command over the program: ``preview``, ``up``, ``refresh``, ``destroy``."""
        summary = Summary()

        def on_event(event: dict[str, Any]) -> None:
            told = translate(event, summary, preview)
            if told is not None:
                self._tell(told)
            if self._stop_on(summary):
                self.interrupt()

        server = grpc.server(futures.ThreadPoolExecutor(max_workers=MAX_HANDLERS), options=GRPC_OPTIONS)
        language_pb2_grpc.add_LanguageRuntimeServicer_to_server(LanguageServer(program), server)
        events_pb2_grpc.add_EventsServicer_to_server(_Events(on_event), server)
        add_provider(server, servicer)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()

        def close() -> None:
            # A dead engine is not a dead Create: nothing of ours may still be at work when the result is written.
            servicer.cancel_all()
            server.stop(HANDLERS_GRACE_S).wait()

        argv = [str(self._engine), *words, "--non-interactive", f"--client=127.0.0.1:{port}"]
        argv += ["--exec-kind", "auto.inline", "--event-log", f"tcp://127.0.0.1:{port}", "--color", "never"]
        return self._run(argv, {**self._env, "SKYINFRA_PROVIDER_PORT": str(port)}, summary, close)

    def _run(self, argv: list[str], env: dict[str, str], summary: Summary, close: Callable[[], None]) -> Outcome:
        try:
            with self._guard:
                late = self._ends_at is not None and time.monotonic() > self._ends_at
                if late or self._interrupted_at is not None:
                    return Outcome(-1, "", "", summary, interrupted=True, late=late)
                self._process = subprocess.Popen(
                    argv,
                    cwd=self._cwd,
                    env=env,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    errors="replace",
                    process_group=0,
                )
            stdout, stderr, late, killed = self._wait(self._process)
        finally:
            close()
        code = self._process.returncode
        return Outcome(code, stdout, stderr, summary, self._interrupted_at is not None, killed, late)

    def _wait(self, process: subprocess.Popen[str]) -> tuple[str, str, bool, bool]:
        late = killed = False
        while True:
            try:
                stdout, stderr = process.communicate(timeout=LOOK_S)
                return stdout, stderr, late, killed
            except subprocess.TimeoutExpired:
                pass
            if self._ends_at is not None and time.monotonic() > self._ends_at and not late:
                late = True
                self.interrupt()
            asked = self._interrupted_at
            if asked is not None and time.monotonic() - asked > CANCEL_GRACE_S and not killed:
                killed = True
                kill_group(process.pid)


def kill_group(pid: int) -> None:
    """SIGKILL an engine and what it started: plugins sit in groups of their own, but are its children."""
    children = processes.descendants(pid)
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # it ended meanwhile
    processes.end(lambda: [child for child in children if processes.alive(child)])
