"""The server itself: health, version, doctor, shutdown."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request
from starlette.responses import Response, StreamingResponse

from skyinfra.server import build
from skyinfra.server.answers import HttpError, json_response
from skyinfra.server.identity import authorize
from skyinfra.server.log import tailed
from skyinfra.wire import versions

__all__ = ["router"]

router = APIRouter(prefix="/v1")


@router.get("/health")
async def health() -> Response:
    """Whether it answers; the only call without a token."""
    return json_response(
        {
            "status": "healthy",
            "api": versions.API_VERSION,
            "min_api": versions.MIN_API_VERSION,
            "version": versions.PRODUCT_VERSION,
        }
    )


@router.get("/version")
async def version(request: Request) -> Response:
    """Who this server is."""
    commit = await asyncio.to_thread(build.commit)
    return json_response(request.app.state.services.about(request.scope["principal"], commit))


@router.get("/doctor")
async def doctor(request: Request) -> Response:
    """Everything that exists for this state folder, against the rows that own it."""
    authorize(request.scope["principal"], "doctor")
    return json_response(await request.app.state.services.doctor())


@router.get("/server-log")
async def server_log(request: Request, tail: int | None = None, follow: int = 0) -> Response:
    """The server's own log, or its last `tail` lines; with `follow`, goes on until the server stops."""
    authorize(request.scope["principal"], "server log")
    services = request.app.state.services
    path = services.settings.home.server_log
    if not path.exists():
        raise HttpError(404, "RuntimeError", "the server keeps no log: it writes to the terminal that started it")
    lines = tailed(path, tail, lambda: bool(follow) and not services.stop_asked.is_set())
    return StreamingResponse(lines, media_type="text/plain; charset=utf-8")


@router.post("/shutdown")
async def shutdown(request: Request) -> Response:
    """Park the requests, end the workers, end."""
    authorize(request.scope["principal"], "shutdown")
    request.app.state.services.ask_to_stop()
    return json_response({"status": "stopping"}, 202)
