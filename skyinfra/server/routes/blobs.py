"""Uploads: ``HEAD`` asks whether a tree is there, ``PUT`` streams it in."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from skyinfra.server.identity import authorize

__all__ = ["router"]

router = APIRouter(prefix="/v1/blobs")


@router.head("/{digest}")
async def have(digest: str, request: Request) -> Response:
    """200 when the tree is there, 404 when it must be sent."""
    return Response(status_code=200 if request.app.state.services.blobs.has(digest) else 404)


@router.put("/{digest}")
async def put(digest: str, request: Request) -> Response:
    """One tar; 201 when it was new, 200 when it was there, 422 when it has another digest."""
    authorize(request.scope["principal"], "upload")
    made = await request.app.state.services.blobs.put(digest, request.stream())
    return Response(status_code=201 if made else 200)
