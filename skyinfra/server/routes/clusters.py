"""A cluster's jobs: one row, its log by byte offset, its files. The bytes pass through as the agent sends them."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response, StreamingResponse

from skyinfra.server.answers import json_response
from skyinfra.server.identity import authorize
from skyinfra.server.settings import DEFAULT_WORKSPACE

__all__ = ["router"]

router = APIRouter(prefix="/v1/clusters/{name}/jobs/{job}")


@router.get("")
async def row(name: str, job: str, request: Request, workspace: str = DEFAULT_WORKSPACE) -> Response:
    """The job's row, `job` being its id or ``latest``; from the mirror while the agent is away."""
    authorize(request.scope["principal"], "queue")
    found = await request.app.state.services.fleet.jobs.row(workspace, name, job)
    return json_response({**found, "cluster_name": name})


@router.get("/log")
async def log(
    name: str,
    job: str,
    request: Request,
    rank: int = 0,
    offset: int = 0,
    follow: int = 1,
    tail: int = 0,
    workspace: str = DEFAULT_WORKSPACE,
) -> Response:
    """Raw bytes. With `follow`, ends when the job is final or the agent is lost: the client looks which."""
    authorize(request.scope["principal"], "logs")
    logs = request.app.state.services.fleet.logs
    headers, content = await logs.open(workspace, name, job, rank=rank, offset=offset, follow=bool(follow), tail=tail)
    return StreamingResponse(content, headers=headers, media_type="application/octet-stream")


@router.get("/files")
async def files(name: str, job: str, request: Request, workspace: str = DEFAULT_WORKSPACE) -> Response:
    """A tar of the job's log folder."""
    authorize(request.scope["principal"], "logs")
    headers, content = await request.app.state.services.fleet.logs.files(workspace, name, job)
    return StreamingResponse(content, headers=headers, media_type="application/x-tar")
