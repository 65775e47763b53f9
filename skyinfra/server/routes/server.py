"""The server itself: health, version, doctor, shutdown."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from skyinfra.server.answers import json_response
from skyinfra.server.identity import authorize
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
    return json_response(request.app.state.services.about())


@router.get("/doctor")
async def doctor(request: Request) -> Response:
    """Everything that exists for this state folder, against the rows that own it."""
    authorize(request.scope["principal"], "doctor")
    return json_response(await request.app.state.services.doctor())


@router.post("/shutdown")
async def shutdown(request: Request) -> Response:
    """Park the requests, end the workers, end."""
    authorize(request.scope["principal"], "shutdown")
    request.app.state.services.ask_to_stop()
    return json_response({"status": "stopping"}, 202)
