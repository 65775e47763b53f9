"""A cluster's jobs: one row, its log by byte offset, its files. The bytes pass through as the agent sends them."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response, StreamingResponse

from skyinfra.server.answers import json_response
from skyinfra.server.services import Services

__all__ = ["router"]

router = APIRouter(prefix="/v1/clusters/{name}/jobs/{job}")


@router.get("")
async def row(name: str, job: str, request: Request, workspace: str | None = None) -> Response:
    """The job's row, `job` being its id or ``latest``; from the mirror while the agent is away."""
    services: Services = request.app.state.services
    where = await services.workspaces.of(request.scope["principal"], "queue", workspace, name)
    found = await services.fleet.jobs.row(where, name, job)
    return json_response({**found, "cluster_name": name})


@router.get("/log")
async def log(
    name: str,
    job: str,
    request: Request,
    rank: int | None = None,
    offset: int = 0,
    follow: int = 1,
    tail: int = 0,
    workspace: str | None = None,
) -> Response:
    """Raw bytes, of one rank or of all. With `follow`, until the job is final or the agent lost: the client looks."""
    services: Services = request.app.state.services
    where = await services.workspaces.of(request.scope["principal"], "logs", workspace, name)
    headers, content = await services.fleet.logs.open(
        where, name, job, rank=rank, offset=offset, follow=bool(follow), tail=tail
    )
    return StreamingResponse(content, headers=headers, media_type="application/octet-stream")


@router.get("/files")
async def files(name: str, job: str, request: Request, workspace: str | None = None) -> Response:
    """A tar of the job's log folder."""
    services: Services = request.app.state.services
    where = await services.workspaces.of(request.scope["principal"], "logs", workspace, name)
    headers, content = await services.fleet.logs.files(where, name, job)
    return StreamingResponse(content, headers=headers, media_type="application/x-tar")
