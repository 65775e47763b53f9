"""Uploads: the manifest of a tree names it; ``missing`` says which of its chunks must be sent, packs bring them."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request
from starlette.responses import Response

from skyinfra.server.answers import HttpError, json_response
from skyinfra.server.blobs import Blobs
from skyinfra.server.identity import authorize

__all__ = ["router"]

router = APIRouter(prefix="/v1/blobs")


@router.head("/{digest}")
async def have(digest: str, request: Request) -> Response:
    """200 when the manifest is there, 404 when it must be sent. (Asked by clients that send tars.)"""
    return Response(status_code=200 if request.app.state.services.blobs.has(digest) else 404)


@router.get("/{digest}/missing")
async def missing(digest: str, request: Request) -> Response:
    """``{"missing": [digest of a chunk, …]}``: empty when all of the tree is there; of many only the first.

    404: its manifest must be sent."""
    blobs: Blobs = request.app.state.services.blobs
    found = await asyncio.to_thread(blobs.missing, digest)
    if found is None:
        raise HttpError(404, "ValueError", f"there is no manifest {digest}")
    return json_response({"missing": found})


@router.put("/{digest}")
async def put(digest: str, request: Request) -> Response:
    """A manifest (`skyinfra/runtime/tree.py`), or the tar of an older client; 201 when it was new, 200 when it was
    there, 422 for another digest or no manifest, 413 for a tree over the limit, 507 without room for it."""
    authorize(request.scope["principal"], "upload")
    made = await request.app.state.services.blobs.put(digest, request.stream())
    return Response(status_code=201 if made else 200)


@router.post("")
async def put_pack(request: Request) -> Response:
    """A pack of chunks (`skyinfra/runtime/chunks.py`); of one that breaks off the whole chunks are kept."""
    authorize(request.scope["principal"], "upload")
    length = request.headers.get("content-length", "")
    if not length.isdigit():
        raise HttpError(411, "ValueError", "a pack needs a Content-Length")
    await request.app.state.services.blobs.put_pack(request.stream(), int(length))
    return Response(status_code=201)
