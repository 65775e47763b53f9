"""Starts workers and reads what they answer; the server's only way to stacks. asyncio, no Pulumi.

`Launcher.run` is one operation: folder, worker (the spare, if one waits), request and secrets down its pipe, events
back as they happen, the result from the folder. Cancelling the awaiting task cancels the operation. `settle` is for
operations that an earlier server left: their worker is waited for or ended, whole session, and its result, if it wrote
one, returned. Refuses to guess: no result means that the caller runs `recover` or the operation again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping

from skyinfra.model.home import Home
from skyinfra.runtime.boundary import boundary, campaign_variables
from skyinfra.stacks import processes
from skyinfra.stacks.clouds.registry import env_names
from skyinfra.stacks.files import make_private_dir
from skyinfra.stacks.folder import OperationFolder
from skyinfra.stacks.operation import OperationEvent, OperationRequest, OperationResult
from skyinfra.stacks.settings import BadSetting, load_settings

__all__ = ["CANCEL_WAIT_S", "Launcher"]

#: The worker gives its engine 10 s after a cancel; then it still kills, waits for handlers and writes its result.
CANCEL_WAIT_S = 18.0
SETTLE_WAIT_S = 2.0
MAX_EVENT_BYTES = 1 << 20
_KEPT = frozenset(
    ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ", "TMPDIR", "XDG_RUNTIME_DIR", "XDG_CACHE_HOME")
)
_KEPT_FOR_THE_INSTALLER = frozenset(
    [
        *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR"),
        *("GOPROXY", "GOSUMDB", "GONOSUMDB", "GOFLAGS", "GOPATH", "GOCACHE", "GOMODCACHE", "GOTOOLCHAIN"),
    ]
)
"""What the first operation needs that must fetch or build the engine; in either case."""

OnEvent = Callable[[OperationEvent], None]
Process = asyncio.subprocess.Process


class Launcher:
    """One per server. `spare` keeps one worker warm."""

    def __init__(self, home: Home, *, spare: bool = True, env: Mapping[str, str] = os.environ) -> None:
        self._home = home
        self._want_spare = spare
        self._env = worker_env(home, env)
        self._given_env = env
        self._spare: Process | None = None
        self._running: dict[str, Process] = {}
        self._stopping = False

    async def start(self) -> None:
        """Starts the spare. Idempotent."""
        await self._refill()

    async def stop(self, grace_s: float = 10.0) -> None:
        """Cancels every operation, waits, then ends what is left; the spare goes at once."""
        self._stopping = True
        if self._spare is not None:
            _close_input(self._spare)
            await self._end(self._spare, grace_s=1.0)
            self._spare = None
        for process in self._running.values():
            _terminate(process)
        await asyncio.gather(*(self._end(process, grace_s) for process in list(self._running.values())))

    async def run(
        self,
        request: OperationRequest,
        secrets: Mapping[str, str],
        on_event: OnEvent,
        *,
        env: Mapping[str, str] | None = None,
    ) -> OperationResult:
        """Perform the operation. A failure is a result; when this task is cancelled so is the operation.

        Raises `RuntimeError` when the launcher is stopping, `OSError` when no process can be started.
        """
        folder = OperationFolder(self._home, request.id)
        await asyncio.to_thread(folder.write_request, request)
        for attempt in (1, 2):
            process, began = await self._begin(folder, request, secrets, env or {})
            try:
                code = await self._follow(process, on_event, began)
            except BaseException:  # cancelled, or `on_event` raised: either way nothing may go on behind our back
                _terminate(process)
                await asyncio.shield(self._end(process, CANCEL_WAIT_S))
                raise
            finally:
                self._running.pop(request.id, None)
            await self._end_session(process.pid)
            result = await asyncio.to_thread(folder.result)
            if result is not None and result.fence == request.fence:
                break
            if began.is_set() or attempt == 2:
                result = OperationResult(
                    "failed", request.fence, "engine", f"the worker ended without a result (exit {code})"
                )
                break
        if not self._stopping:
            await self._refill()
        assert result is not None, "the loop ends with a result"
        return result

    async def settle(self, operation_id: str) -> OperationResult | None:
        """End what an earlier server's operation left running. Its result, or None: then recover, or run it again.

        Raises `RuntimeError` when its session will not end.
        """
        folder = OperationFolder(self._home, operation_id)
        request, worker = await asyncio.to_thread(folder.request), await asyncio.to_thread(folder.worker)
        if request is None:
            return None
        if worker is not None and worker.boot_id == processes.boot_id():
            await asyncio.to_thread(processes.wait_until, lambda: not processes.alive(worker), SETTLE_WAIT_S)
            await self._end_session(worker.pid, worker)
        result = await asyncio.to_thread(folder.result)
        return result if result is not None and result.fence == request.fence else None

    async def forget(self, operation_id: str) -> None:
        """Remove the folder of an operation that has ended. Idempotent."""
        await asyncio.to_thread(shutil.rmtree, OperationFolder(self._home, operation_id).path, ignore_errors=True)

    # below: processes -------------------------------------------------------------------------------------------------

    async def _begin(
        self,
        folder: OperationFolder,
        request: OperationRequest,
        secrets: Mapping[str, str],
        env: Mapping[str, str],
    ) -> tuple[Process, asyncio.Event]:
        if self._stopping:
            raise RuntimeError("the launcher is stopping")
        process = await self._take()
        self._running[request.id] = process
        identity = processes.Identity.of(process.pid)
        if identity is not None:
            # On disk before the worker knows what to do: whatever happens next, `settle` finds whom to end.
            await asyncio.to_thread(folder.write_worker, identity)
        boundary("launcher.send.before")
        given = {**self._credentials(), **self._cloud_env(request), **env}
        message = json.dumps({"request": request.to_json(), "env": given})
        assert process.stdin is not None, "spawned with a pipe"
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it ended: `run` sees no result, and says so
            process.stdin.write(message.encode() + b"\n" + json.dumps(dict(secrets)).encode() + b"\n")
            await process.stdin.drain()
        _close_input(process)
        boundary("launcher.send.made")
        return process, asyncio.Event()

    def _credentials(self) -> dict[str, str]:
        """For the engine's backend and secrets provider alone; they reach the worker on its pipe, never a spare."""
        try:
            return load_settings(self._home, self._given_env).credentials(self._given_env)
        except BadSetting:
            return {}  # the worker reads the same file, and its result says what is wrong

    def _cloud_env(self, request: OperationRequest) -> dict[str, str]:
        """What leads to the account: of the server's environment, and no more than the cloud's list names.

        A request without a spec is given every cloud's: only its stack's state knows which one it is on.
        """
        names = env_names(request.spec.cloud if request.spec is not None else None)
        return {name: value for name, value in self._given_env.items() if name in names}

    async def _follow(self, process: Process, on_event: OnEvent, began: asyncio.Event) -> int:
        assert process.stdout is not None, "spawned with a pipe"
        while line := await process.stdout.readline():
            began.set()
            on_event(OperationEvent(**json.loads(line)))
        return await process.wait()

    async def _take(self) -> Process:
        spare, self._spare = self._spare, None
        if spare is not None and spare.returncode is None:
            return spare
        return await self._spawn()

    async def _refill(self) -> None:
        if self._want_spare and (self._spare is None or self._spare.returncode is not None):
            self._spare = None
            self._spare = await self._spawn()

    async def _spawn(self) -> Process:
        make_private_dir(self._home.root)
        log = os.open(self._home.root / "workers.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            return await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "skyinfra.stacks.worker",
                cwd=self._home.root,
                env=self._env,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                limit=MAX_EVENT_BYTES,
                start_new_session=True,
            )
        finally:
            os.close(log)

    async def _end(self, process: Process, grace_s: float) -> None:
        """Wait for it, then SIGKILL its session."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), grace_s)
        await self._end_session(process.pid)
        await process.wait()

    async def _end_session(self, sid: int, leader: processes.Identity | None = None) -> None:
        """Until the session is empty. With `leader`, only if its number was not handed out again."""
        now = processes.Identity.of(sid)
        if leader is not None and now is not None and now != leader:
            return

        def members() -> list[processes.Identity]:
            mark = f"SKYINFRA_HOME={self._home.root}"
            return [
                process
                for process in processes.session_members(sid)
                # One that hides its environment is between two programs, or ending: neither may be left behind.
                if processes.environ_has(process.pid, mark) or processes.environ_hidden(process.pid)
            ]

        left = await asyncio.to_thread(processes.end, members)
        if left:
            raise RuntimeError(f"processes {', '.join(str(p.pid) for p in left)} of a dead worker do not end")


def worker_env(home: Home, env: Mapping[str, str]) -> dict[str, str]:
    """What a worker starts with: enough to find things, no credential. Those come with the request."""
    kept = {name: value for name, value in env.items() if name in _KEPT or name.upper() in _KEPT_FOR_THE_INSTALLER}
    ours = {name: value for name, value in env.items() if name.startswith("SKYINFRA_") or name == "PYTHONPATH"}
    return {**kept, **ours, **campaign_variables(env), "SKYINFRA_HOME": str(home.root), "PYTHONUNBUFFERED": "1"}


def _terminate(process: Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)


def _close_input(process: Process) -> None:
    if process.stdin is not None and not process.stdin.is_closing():
        process.stdin.close()
