"""The node agent's wire from the server's side: one method per call of ``runtime/protocol.py``, async.

Values in, values out; foreign errors are translated here, once: no answer is `Unreachable`, an answer >= 400 is
`AgentError`. Streams are async context managers, so that a caller who leaves closes the connection.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skyinfra.channels import Unreachable
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
    dump,
    load,
)

if TYPE_CHECKING:
    import httpx2

__all__ = ["AgentClient", "AgentError", "LogStream"]

CONNECT_TIMEOUT_S = 5.0
CALL_TIMEOUT_S = 30.0
#: A cancel answers when the job has ended (5 s of grace, then SIGKILL); files when they are in place.
LONG_CALL_TIMEOUT_S = 300.0
#: The event stream carries a heartbeat each 5 s: three missed and it is dead.
EVENTS_TIMEOUT_S = 16.0
CHUNK_BYTES = 1 << 18


class AgentError(Exception):
    """The agent refused. `type` is one of the wire's error types (``not_found``, ``draining``, …)."""

    def __init__(self, status: int, type: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.type = type


@dataclass
class LogStream:
    """A job's log from `start_offset` on; `state` is the job's when the stream began."""

    start_offset: int
    state: str
    chunks: AsyncIterator[bytes]


class AgentClient:
    """One agent. Safe for concurrent calls; `aclose` when done."""

    def __init__(self, transport: httpx2.AsyncBaseTransport, token: str) -> None:
        import httpx2

        self._errors = httpx2.TransportError
        self._long = httpx2.Timeout(LONG_CALL_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
        self._endless = httpx2.Timeout(None, connect=CONNECT_TIMEOUT_S)
        self._heartbeat = httpx2.Timeout(EVENTS_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
        self._http = httpx2.AsyncClient(
            transport=transport,
            base_url="http://agent",
            headers={"Authorization": f"Bearer {token}"},
            timeout=httpx2.Timeout(CALL_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
        )

    async def __aenter__(self) -> AgentClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        await self._http.aclose()

    async def health(self) -> Health:
        return load(Health, await self._json("GET", "/v1/health"))

    async def put_config(self, config: NodeConfig) -> None:
        await self._json("PUT", "/v1/config", dump(config))

    async def has_file(self, digest: str) -> bool:
        """Whether the agent holds this blob."""
        try:
            return (await self._send("HEAD", f"/v1/files/{digest}")).status_code == 200
        except AgentError as exc:
            if exc.status == 404:
                return False
            raise

    async def put_file(self, digest: str, path: Path) -> None:
        """Stream a tree's manifest there, unless the agent has it. Raises `AgentError` (``digest``, ``no_space``)."""
        if not await self.has_file(digest):
            headers = {"Content-Length": str((await asyncio.to_thread(path.stat)).st_size)}
            await self._send("PUT", f"/v1/files/{digest}", content=_chunks(path), headers=headers, timeout=self._long)

    async def put_pack(self, pack: AsyncIterator[bytes], size: int) -> None:
        """Stream chunks there (`runtime/chunks.py`). Raises as `put_file`; whole chunks are kept whatever happens."""
        headers = {"Content-Length": str(size)}
        await self._send("POST", "/v1/files", content=pack, headers=headers, timeout=self._long)

    async def apply(self, files: FilesApply) -> FilesMissing:
        """Put trees in their places; nothing was done when the answer names what is missing."""
        return load(FilesMissing, await self._json("POST", "/v1/files/apply", dump(files), timeout=self._long))

    async def check_out(self, wanted: GitCheckout) -> GitState:
        """Not done: ask again. Raises `AgentError` (``git``, ``unsafe_path``)."""
        return load(GitState, await self._json("POST", "/v1/files/git", dump(wanted)))

    async def submit(self, job: JobSubmit) -> int:
        """The job's id; the same `key` gives the same id. Raises `AgentError` (``draining``)."""
        return int((await self._json("POST", "/v1/jobs", dump(job)))["job_id"])

    async def jobs(self, ids: list[int] | None = None) -> list[JobRow]:
        params = {"ids": ",".join(str(job_id) for job_id in ids)} if ids is not None else None
        return [load(JobRow, row) for row in (await self._json("GET", "/v1/jobs", params=params))["jobs"]]

    async def job(self, job_id: int) -> JobRow:
        return load(JobRow, await self._json("GET", f"/v1/jobs/{job_id}"))

    async def cancel(self, job_id: int) -> JobRow:
        """Returns when the job has ended."""
        return load(JobRow, await self._json("POST", f"/v1/jobs/{job_id}/cancel", {}, timeout=self._long))

    @asynccontextmanager
    async def log(
        self, job_id: int, *, rank: int | None = None, offset: int = 0, follow: bool = False, tail: int | None = None
    ) -> AsyncIterator[LogStream]:
        """Raises `Unreachable` also from the chunks when the connection breaks: go on at the next offset."""
        params: dict[str, Any] = {"offset": offset, "follow": int(follow)}
        if rank is not None:
            params["rank"] = rank
        if tail is not None:
            params["tail"] = tail
        async with self._stream(f"/v1/jobs/{job_id}/log", params, self._endless) as response:
            start = int(response.headers.get("X-Start-Offset", offset))
            yield LogStream(start, response.headers.get("X-Job-State", ""), self._raw(response))

    @asynccontextmanager
    async def job_files(self, job_id: int) -> AsyncIterator[AsyncIterator[bytes]]:
        """A tar of the job's log folder."""
        async with self._stream(f"/v1/jobs/{job_id}/files", {}, self._long) as response:
            yield self._raw(response)

    async def drain(self, reason: str) -> None:
        await self._json("POST", "/v1/drain", {"reason": reason})

    async def undrain(self) -> None:
        await self._json("DELETE", "/v1/drain")

    async def run_hooks(self, event: str, key: str, *, auto: bool) -> bool:
        """True when all have ended; False: still at it, ask again. Raises `AgentError` (``claimed``, ``not_found``)."""
        body = {"event": event, "key": key, "auto": auto}
        return bool((await self._json("POST", "/v1/hooks", body))["done"])

    async def shutdown(self, *, kill_jobs: bool) -> None:
        await self._json("POST", "/v1/shutdown", {"kill_jobs": kill_jobs}, timeout=self._long)

    async def events(self, after: int = 0) -> AsyncIterator[Event]:
        """Never ends by itself; raises `Unreachable` when the agent ends or misses its heartbeats."""
        async with self._stream("/v1/events", {"after": after}, self._heartbeat) as response:
            rest = b""
            async for chunk in self._raw(response):
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    if line.strip():
                        yield load(Event, json.loads(line))
        raise Unreachable("its event stream ended")

    # below: transport -------------------------------------------------------------------------------------------------

    async def _json(self, method: str, path: str, body: Any = None, **options: Any) -> dict[str, Any]:
        response = await self._send(method, path, **({"json": body} if body is not None else {}), **options)
        return response.json() if response.content else {}

    async def _send(self, method: str, path: str, **options: Any) -> httpx2.Response:
        try:
            response = await self._http.request(method, path, **options)
        except self._errors as exc:
            raise Unreachable(_reason(exc)) from exc
        _raise_for(response)
        return response

    @asynccontextmanager
    async def _stream(
        self, path: str, params: dict[str, Any], limits: httpx2.Timeout
    ) -> AsyncIterator[httpx2.Response]:
        request = self._http.build_request("GET", path, params=params, timeout=limits)
        try:
            response = await self._http.send(request, stream=True)
        except self._errors as exc:
            raise Unreachable(_reason(exc)) from exc
        try:
            if response.status_code >= 400:
                await response.aread()
                _raise_for(response)
            yield response
        finally:
            await response.aclose()

    async def _raw(self, response: httpx2.Response) -> AsyncIterator[bytes]:
        try:
            async for chunk in response.aiter_raw():
                yield chunk
        except self._errors as exc:
            raise Unreachable(_reason(exc)) from exc


def _reason(exc: Exception) -> str:
    return str(exc) or type(exc).__name__


def _raise_for(response: httpx2.Response) -> None:
    if response.status_code < 400:
        return
    try:
        body = response.json()
        kind, message = str(body["type"]), str(body["message"])
    except (ValueError, KeyError, TypeError):
        kind, message = "internal", response.text[:300] or f"status {response.status_code}"
    raise AgentError(response.status_code, kind, message)


async def _chunks(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
            yield chunk
