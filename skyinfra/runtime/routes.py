"""What each path of the agent's API does: checks the token, reads the request, calls the use case, names the error.

Thin. The table at the head of `protocol.py` is the contract.
"""

import asyncio
import errno
import hmac
import json
import os
import re
import sqlite3
import time
from typing import AsyncIterator, Awaitable, BinaryIO, Callable, List, Optional, Tuple

from skyinfra.runtime import disk, logs
from skyinfra.runtime.chunks import BadPack
from skyinfra.runtime.files import Files, WrongDigest
from skyinfra.runtime.git import Checkouts, GitFailed
from skyinfra.runtime.hooks import Claimed, Hooks
from skyinfra.runtime.http import HttpError, Request, Response
from skyinfra.runtime.jobs import Draining, Jobs
from skyinfra.runtime.protocol import (
    GIT_WAIT_S,
    HEARTBEAT_S,
    HOOKS_WAIT_S,
    Event,
    FilesApply,
    GitCheckout,
    Health,
    JobRow,
    JobSubmit,
    NodeConfig,
    dump,
)
from skyinfra.runtime.say import say
from skyinfra.runtime.schema import checked
from skyinfra.runtime.tree import UnsafePath

Route = Callable[..., Awaitable[Response]]


class Api:
    """`config` is called with each new `NodeConfig` and the names that were given; `shutdown` ends the agent."""

    def __init__(
        self,
        token: str,
        jobs: Jobs,
        files: Files,
        checkouts: Checkouts,
        hooks: Hooks,
        about: Health,
        config: Callable[[NodeConfig, "set[str]"], Awaitable[None]],
        shutdown: Callable[[], None],
    ) -> None:
        self._bearer = ("Bearer " + token).encode()
        self._jobs, self._files, self._checkouts, self._hooks, self._about = jobs, files, checkouts, hooks, about
        self._config, self._shutdown = config, shutdown
        self._started = time.monotonic()
        self._routes: List[Tuple[str, "re.Pattern[str]", Route]] = [
            (method, re.compile("/v1" + pattern + r"\Z"), route)
            for method, pattern, route in (
                ("GET", "/health", self.get_health),
                ("PUT", "/config", self.put_config),
                ("HEAD", "/files/([^/]+)", self.head_file),
                ("PUT", "/files/([^/]+)", self.put_file),
                ("POST", "/files", self.put_pack),
                ("POST", "/files/apply", self.apply_files),
                ("POST", "/files/git", self.check_out),
                ("POST", "/jobs", self.submit),
                ("GET", "/jobs", self.list_jobs),
                ("GET", r"/jobs/(\d{1,15})", self.get_job),
                ("POST", r"/jobs/(\d{1,15})/cancel", self.cancel),
                ("GET", r"/jobs/(\d{1,15})/log", self.get_log),
                ("GET", r"/jobs/(\d{1,15})/files", self.get_log_folder),
                ("POST", "/drain", self.drain),
                ("DELETE", "/drain", self.undrain),
                ("POST", "/hooks", self.run_hooks),
                ("GET", "/events", self.events),
                ("POST", "/shutdown", self.stop),
            )
        ]

    async def __call__(self, request: Request) -> Response:
        given = request.headers.get("authorization", "").encode("latin-1")
        if not hmac.compare_digest(given, self._bearer):
            raise HttpError(401, "unauthorized", "a bearer token is needed")
        for method, pattern, route in self._routes:
            match = pattern.match(request.path) if method == request.method else None
            if match is not None:
                return await self._call(route, request, match.groups())
        raise HttpError(404, "not_found", "no {} {}".format(request.method, request.path))

    async def _call(self, route: Route, request: Request, groups: Tuple[str, ...]) -> Response:
        try:
            return await route(request, *groups)
        except Draining as exc:
            raise HttpError(409, "draining", str(exc)) from exc
        except Claimed as exc:
            raise HttpError(409, "claimed", str(exc)) from exc
        except UnsafePath as exc:
            raise HttpError(400, "unsafe_path", str(exc)) from exc
        except GitFailed as exc:
            raise HttpError(400, "git", str(exc)) from exc
        except (WrongDigest, BadPack) as exc:
            raise HttpError(422, "digest", str(exc)) from exc
        except ValueError as exc:
            raise HttpError(400, "bad_request", str(exc)) from exc
        except sqlite3.Error as exc:
            full = "full" in str(exc)
            raise HttpError(507 if full else 500, "no_space" if full else "internal", "ledger: {}".format(exc)) from exc
        except asyncio.IncompleteReadError:
            raise
        except OSError as exc:
            raise _os_error(exc) from exc

    def health(self) -> Health:
        about = self._about
        about.state = "ready" if self._jobs.drain_reason is None else "draining"
        about.uptime_s = round(time.monotonic() - self._started, 3)
        return about

    # --- node -------------------------------------------------------------------------------------------------------

    async def get_health(self, request: Request) -> Response:
        return Response(dump(self.health()))

    async def put_config(self, request: Request) -> Response:
        body = await request.json()
        await self._config(checked(NodeConfig, body), set(body))
        return Response({})

    async def drain(self, request: Request) -> Response:
        self._jobs.drain(str((await request.json()).get("reason") or "draining"))
        return Response({})

    async def undrain(self, request: Request) -> Response:
        self._jobs.drain(None)
        self._hooks.release()
        return Response({})

    async def run_hooks(self, request: Request) -> Response:
        body = await request.json()
        event, key, auto = str(body.get("event") or ""), str(body.get("key") or ""), bool(body.get("auto"))
        if not key:
            raise ValueError("hooks need a key")
        return Response({"done": await self._hooks.run(self._jobs.config, event, key, auto, HOOKS_WAIT_S)})

    async def stop(self, request: Request) -> Response:
        if (await request.json()).get("kill_jobs"):
            self._jobs.drain_reason = "the node is going down"
            await self._jobs.stop_all()
        asyncio.get_event_loop().call_later(0.05, self._shutdown)  # after the answer
        return Response({})

    # --- files ------------------------------------------------------------------------------------------------------

    async def head_file(self, request: Request, digest: str) -> Response:
        if not self._files.has(digest):
            raise HttpError(404, "not_found", "no such tree")
        return Response({})

    async def put_file(self, request: Request, digest: str) -> Response:
        if self._files.has(digest):
            async for _ in request.chunks():
                pass  # there already
            return Response({}, 200)
        blob = self._files.receive(digest)
        try:
            async for data in request.chunks():
                blob.write(data)
            blob.commit()
        finally:
            blob.discard()
        return Response({}, 201)

    async def put_pack(self, request: Request) -> Response:
        """The rest of a pack that is refused is read: the peer gets the answer rather than a broken connection."""
        pack = self._files.chunks.receive()
        refused: Optional[Exception] = None
        try:
            async for data in request.chunks():
                if refused is None:
                    try:
                        pack.write(data)
                    except (BadPack, OSError) as exc:
                        refused = exc
        finally:
            whole = pack.close()
        if refused is not None:
            raise refused
        if not whole:
            raise HttpError(400, "bad_request", "the pack ends in the middle of a chunk")
        return Response({}, 201)

    async def apply_files(self, request: Request) -> Response:
        wanted = checked(FilesApply, await request.json())
        return Response(dump(await asyncio.get_event_loop().run_in_executor(None, self._files.apply, wanted)))

    async def check_out(self, request: Request) -> Response:
        wanted = checked(GitCheckout, await request.json())
        return Response(dump(await self._checkouts.run(wanted, GIT_WAIT_S)))

    # --- jobs -------------------------------------------------------------------------------------------------------

    async def submit(self, request: Request) -> Response:
        return Response({"job_id": self._jobs.submit(checked(JobSubmit, await request.json()))})

    async def list_jobs(self, request: Request) -> Response:
        ids = [int(part) for part in request.query["ids"].split(",") if part] if "ids" in request.query else None
        return Response({"jobs": [dump(row) for row in self._jobs.ledger.rows(ids)]})

    async def get_job(self, request: Request, job_id: str) -> Response:
        return Response(dump(self._row(job_id)))

    async def cancel(self, request: Request, job_id: str) -> Response:
        await request.json()
        self._row(job_id)
        return Response(dump(await self._jobs.cancel(int(job_id))))

    async def get_log(self, request: Request, job_id: str) -> Response:
        row = self._row(job_id)
        folder = self._jobs.log_folder(row)
        path = os.path.join(folder, self._log_name(row, request.query.get("rank") or ""))
        offset = int(request.query.get("offset") or 0)
        tail = int(request.query.get("tail") or 0)
        if offset < 0 or tail < 0:
            raise ValueError("offset and tail are not negative")
        if tail:
            offset = logs.tail_offset(path, tail)
        headers = {"X-Start-Offset": str(offset), "X-Job-State": row.state}
        if request.query.get("follow") in ("1", "true"):
            stream = logs.follow(self._jobs, row.job_id, folder, path, offset)
            return Response(headers=headers, stream=stream, content_type="application/octet-stream")
        end = logs.size_of(path)
        stream = logs.read(path, offset, end)
        length = max(0, end - offset)
        return Response(headers=headers, stream=stream, length=length, content_type="application/octet-stream")

    def _log_name(self, row: JobRow, rank: str) -> str:
        """All ranks' together unless one is asked for. Raises `HttpError`, `ValueError`."""
        if not rank:
            return "run.log"
        ranks = self._jobs.ledger.rank_count(row.job_id)
        if not 0 <= int(rank) < ranks:
            raise HttpError(404, "not_found", "the job has ranks 0 to {}".format(ranks - 1))
        several = os.path.exists(os.path.join(self._jobs.log_folder(row), "rank-0.log"))
        return "rank-{}.log".format(int(rank)) if ranks > 1 or several else "run.log"

    async def get_log_folder(self, request: Request, job_id: str) -> Response:
        folder = self._jobs.log_folder(self._row(job_id))
        loop = asyncio.get_event_loop()
        packed = await loop.run_in_executor(None, logs.pack_folder, folder, self._jobs.node.state_folder)
        length = os.fstat(packed.fileno()).st_size
        return Response(stream=_pieces(packed), length=length, content_type="application/x-tar")

    async def events(self, request: Request) -> Response:
        after = int(request.query.get("after") or 0)
        return Response(stream=self._event_lines(after), content_type="application/x-ndjson")

    async def _event_lines(self, seq: int) -> AsyncIterator[bytes]:
        ledger = self._jobs.ledger
        beat_at = time.monotonic()  # at once: the reader knows that it is connected, and up to which event
        with self._jobs.watch.events() as wake:
            while True:
                wake.clear()
                found = ledger.events_after(seq)
                if found:
                    seq = found[-1].seq
                    yield b"".join(_line(event) for event in found)
                    continue
                if time.monotonic() >= beat_at:
                    beat_at = time.monotonic() + HEARTBEAT_S
                    yield _line(Event(ledger.last_seq(), time.time(), "heartbeat", dump(self.health())))
                await wake.wait(beat_at - time.monotonic())

    def _row(self, job_id: str) -> JobRow:
        row = self._jobs.ledger.row(int(job_id))
        if row is None:
            raise HttpError(404, "not_found", "no job {}".format(job_id))
        return row


def _line(event: Event) -> bytes:
    return json.dumps(dump(event)).encode() + b"\n"


async def _pieces(packed: BinaryIO) -> AsyncIterator[bytes]:
    with packed:
        while True:
            data = packed.read(logs.CHUNK_BYTES)
            if not data:
                return
            yield data


def _os_error(exc: OSError) -> HttpError:
    if exc.errno in disk.FULL:
        return HttpError(507, "no_space", "no space left on the node")
    if isinstance(exc, TimeoutError) and exc.errno is None:
        return HttpError(500, "internal", str(exc))
    say("request failed: {!r}".format(exc))
    name = errno.errorcode.get(exc.errno or 0, "error")
    return HttpError(500, "internal", "{} ({})".format(exc.strerror or exc, name))
