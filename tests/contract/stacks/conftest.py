"""A cluster on the real engine in a temporary state folder, and a scan of what is left of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from skyinfra.model.home import Home
from skyinfra.model.spec import ClusterSpec, Slot, stack_name
from skyinfra.runtime import package
from skyinfra.stacks import processes
from skyinfra.stacks.clouds.local.observe import observe
from skyinfra.stacks.engine import find_engine
from skyinfra.stacks.files import make_private_dir
from skyinfra.stacks.folder import OperationFolder
from skyinfra.stacks.launcher import Launcher
from skyinfra.stacks.operation import OperationEvent, OperationRequest, OperationResult

TOKEN = "canary-agent-token"


def wait_for(condition: Callable[[], object], timeout_s: float = 20.0, what: str = "the condition") -> None:
    assert processes.wait_until(lambda: bool(condition()), timeout_s), f"{what} did not come true in {timeout_s} s"


class Running:
    """An operation on a thread, so that a test can interfere with it."""

    def __init__(self, cluster: StackCluster, request: OperationRequest, env: dict[str, str]) -> None:
        self.request = request
        self.events: list[OperationEvent] = []
        self.result: OperationResult | None = None
        self.cancelled = False
        self._cluster = cluster
        self._env = env
        self._loop = asyncio.new_event_loop()
        self._task: asyncio.Task[OperationResult] | None = None
        self._thread = threading.Thread(target=self._main)
        self._thread.start()

    def _main(self) -> None:
        launcher = Launcher(self._cluster.home, spare=False, env={**os.environ, **self._env})

        async def go() -> None:
            self._task = asyncio.create_task(
                launcher.run(self.request, {"agent_token": TOKEN}, self.events.append, env=None)
            )
            try:
                self.result = await self._task
            except asyncio.CancelledError:
                self.cancelled = True

        self._loop.run_until_complete(go())
        self._loop.close()

    @property
    def worker(self) -> processes.Identity | None:
        return OperationFolder(self._cluster.home, self.request.id).worker()

    def engine(self) -> int:
        """The pid of its engine process."""
        worker = self.worker
        assert worker is not None
        for child in processes.descendants(worker.pid):
            with contextlib.suppress(OSError):
                if Path(f"/proc/{child.pid}/comm").read_text().strip() == "pulumi":
                    return child.pid
        raise AssertionError("its worker runs no engine now")

    def cancel(self) -> None:
        wait_for(lambda: self._task is not None)
        assert self._task is not None
        self._loop.call_soon_threadsafe(self._task.cancel)

    def wait(self, timeout_s: float = 60.0) -> OperationResult | None:
        self._thread.join(timeout_s)
        assert not self._thread.is_alive(), "the operation did not end"
        return self.result


@dataclass
class StackCluster:
    home: Home
    spec: ClusterSpec
    faults: Path
    started: list[Running]

    @property
    def machine(self) -> str:
        return f"{self.spec.stack}-0-0"

    def slot(self, **changes: object) -> ClusterSpec:
        return self.spec.with_slot(0, **changes)

    def begin(self, kind: str, spec: ClusterSpec | None = None, **fields: object) -> Running:
        operation = f"op{len(self.started)}"
        request = OperationRequest(operation, kind, self.spec.stack, spec, **fields)  # type: ignore[arg-type]
        running = Running(self, request, {"SKYINFRA_FAULTS": str(self.faults)})
        self.started.append(running)
        return running

    def run(self, kind: str, spec: ClusterSpec | None = None, **fields: object) -> OperationResult:
        result = self.begin(kind, spec, **fields).wait()
        assert result is not None
        return result

    def up(self, spec: ClusterSpec | None = None, **fields: object) -> OperationResult:
        return self.run("up", spec or self.spec, **fields)

    def settle(self, running: Running) -> OperationResult | None:
        return asyncio.run(Launcher(self.home, spare=False).settle(running.request.id))

    # faults

    def arm(self, boundary: str) -> None:
        (self.faults / boundary).touch()

    def reached(self, boundary: str) -> int:
        """Wait until a process stands still there; its pid."""
        found: list[Path] = []

        def look() -> bool:
            found[:] = self.faults.glob(f"{boundary}.reached.*")
            return bool(found)

        wait_for(look, what=f"boundary {boundary}")
        return int(found[0].name.rsplit(".", 1)[1])

    def release(self) -> None:
        for path in self.faults.iterdir():
            path.unlink(missing_ok=True)

    # what is there

    def machines(self) -> list[dict]:
        return observe(self.home, self.spec.stack)

    def agents(self) -> list[int]:
        """Agent processes of the cluster: those that have its socket as an argument."""
        found = []
        for process in processes.marked(f"SKYINFRA_HOME={self.home.root}"):
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{process.pid}/cmdline").read_bytes().split(b"\0")
                parent = int(Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
                if b"serve" in words and not self._is_agent(parent):
                    found.append(process.pid)
        return found

    @staticmethod
    def _is_agent(pid: int) -> bool:
        try:
            return b"serve" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            return False

    def left(self) -> list[str]:
        """Whatever is left of the cluster: processes, folders, sockets, stacks, locks."""
        found = [f"process {p.pid}" for p in processes.marked(f"SKYINFRA_HOME={self.home.root}")]
        for folder in (self.home.nodes, self.home.sockets()):
            found += [str(path) for path in folder.glob("*")] if folder.is_dir() else []
        if self.home.backend.is_dir():
            found += [str(path) for path in self.home.backend.rglob(f"{self.spec.stack}*")]
        found += [str(path) for path in self.home.locks.glob("gpu-*")] if self.home.locks.is_dir() else []
        return found


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StackCluster]:
    if find_engine() is None:
        pytest.skip("no Pulumi engine here: python -m skyinfra.stacks.engine install")
    home = Home(tmp_path / "home")
    faults = tmp_path / "faults"
    faults.mkdir()
    monkeypatch.setenv("SKYINFRA_HOME", str(home.root))
    stack = stack_name("server", "default", "c")
    version = package.agent_version()
    package.build(make_private_dir(home.root / "agent-cache"))  # pinned: the sources may change while tests run
    spec = ClusterSpec("server", "default", "me", "c", stack, "local", (Slot(0),), agent_version=version)
    cluster = StackCluster(home, spec, faults, [])
    yield cluster
    cluster.release()
    for running in cluster.started:
        running.cancel() if running.result is None and not running.cancelled else None
        running.wait()
    for process in processes.marked(f"SKYINFRA_HOME={home.root}"):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
