"""What the fleet needs from below, as protocols: a launcher of stack operations, agents, and a look at a cloud.

The real ones are ``skyinfra.stacks.launcher``, ``skyinfra.channels`` and ``skyinfra.stacks.clouds``; tests bring fakes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Protocol

from skyinfra.channels import AgentError, Unreachable
from skyinfra.runtime.protocol import (
    Event,
    FilesApply,
    FilesMissing,
    GitCheckout,
    GitState,
    Health,
    JobRow,
    JobSubmit,
    NodeConfig,
)
from skyinfra.stacks.clouds.registry import Cloud, Resolves, Standing
from skyinfra.stacks.operation import OperationEvent, OperationRequest, OperationResult

__all__ = ["Agent", "AgentError", "Cloud", "Connect", "JobLog", "Launcher", "Resolves", "Standing", "Unreachable"]


class JobLog(Protocol):
    """A job's log from `start_offset` on; `state` is the job's when the stream began."""

    start_offset: int
    state: str
    chunks: AsyncIterator[bytes]


class Agent(Protocol):
    """One node's agent. Every call raises `Unreachable` or `AgentError`."""

    async def health(self) -> Health: ...
    async def put_config(self, config: NodeConfig) -> None: ...
    async def put_file(self, digest: str, path: Path) -> None: ...
    async def put_pack(self, pack: AsyncIterator[bytes], size: int) -> None: ...
    async def apply(self, files: FilesApply) -> FilesMissing: ...
    async def check_out(self, wanted: GitCheckout) -> GitState: ...
    async def submit(self, job: JobSubmit) -> int: ...
    async def jobs(self, ids: list[int] | None = None) -> list[JobRow]: ...
    async def cancel(self, job_id: int) -> JobRow: ...
    def log(
        self, job_id: int, *, rank: int | None = None, offset: int = 0, follow: bool = False, tail: int | None = None
    ) -> AbstractAsyncContextManager[JobLog]: ...
    def job_files(self, job_id: int) -> AbstractAsyncContextManager[AsyncIterator[bytes]]: ...
    def events(self, after: int = 0) -> AsyncIterator[Event]: ...
    async def drain(self, reason: str) -> None: ...
    async def undrain(self) -> None: ...
    async def run_hooks(self, event: str, key: str, *, auto: bool) -> bool: ...
    async def aclose(self) -> None: ...


Connect = Callable[[dict[str, Any], str], Awaitable[Agent]]
"""`(node, token)`: a client for the node's agent. Raises `Unreachable`."""


class Launcher(Protocol):
    async def start(self) -> None: ...
    async def stop(self, grace_s: float = 10) -> None: ...
    async def run(
        self,
        request: OperationRequest,
        secrets: dict[str, str],
        on_event: Callable[[OperationEvent], None],
        *,
        env: Mapping[str, str] | None = None,
    ) -> OperationResult: ...
    async def settle(self, operation_id: str) -> OperationResult | None: ...
    async def forget(self, operation_id: str) -> None: ...
