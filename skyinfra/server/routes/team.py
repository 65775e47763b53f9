"""People on the server: their tokens, and the workspaces that are open to them."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from skyinfra.model.states import RoleName
from skyinfra.server.answers import HttpError, json_response
from skyinfra.server.identity import authorize
from skyinfra.server.services import Services

__all__ = ["router"]

router = APIRouter(prefix="/v1")


def _services(request: Request) -> Services:
    return request.app.state.services


async def _fields(request: Request, **kinds: type | tuple[type, ...]) -> dict[str, Any]:
    """The body's fields, None where absent. Raises `HttpError` 400 that names the one that is wrong."""
    try:
        body = await request.json()
    except ValueError:
        raise HttpError(400, "ValueError", "the body is not JSON") from None
    if not isinstance(body, dict):
        raise HttpError(400, "ValueError", "the body must be a JSON object")
    found = {name: body.get(name) for name in kinds}
    for name, value in found.items():
        if value is not None and (not isinstance(value, kinds[name]) or isinstance(value, bool)):
            raise HttpError(400, "ValueError", f"{name}: has the wrong type")
    return found


@router.post("/tokens")
async def make_token(request: Request) -> Response:
    """A new token: `{name, role, user, expires_in_s}`. It is in this answer and nowhere else."""
    given = await _fields(request, name=str, role=str, user=str, expires_in_s=(int, float))
    try:
        role = RoleName(given["role"] or RoleName.USER.value)
    except ValueError:
        known = ", ".join(str(role.value) for role in RoleName)
        raise HttpError(400, "ValueError", f"role: must be one of {known}, not {given['role']!r}") from None
    token, row = await _services(request).tokens.create(
        request.scope["principal"], given["name"] or "", role, given["user"], given["expires_in_s"]
    )
    return json_response({**_token(row), "token": token}, 201)


@router.get("/tokens")
async def tokens(request: Request, all_users: int = 0) -> Response:
    """The caller's tokens, or with `all_users=1` everybody's, without the tokens themselves."""
    found = await _services(request).tokens.listed(request.scope["principal"], bool(all_users))
    return json_response({"tokens": [_token(row) for row in found]})


@router.delete("/tokens/{token_id}")
async def revoke_token(token_id: str, request: Request) -> Response:
    """From now on the token is good for nothing."""
    return json_response(_token(await _services(request).tokens.revoke(request.scope["principal"], token_id)))


@router.get("/workspaces")
async def workspaces(request: Request, requested: str | None = None) -> Response:
    """The workspace that a call of this caller would use, their preferred one, and all that are open to them."""
    services, principal = _services(request), request.scope["principal"]
    authorize(principal, "see workspaces")
    return json_response(
        {
            "workspace": await services.workspaces.of(principal, "see workspaces", requested, None),
            "preferred": await services.workspaces.preferred(principal),
            "accessible": services.workspaces.accessible(principal),
        }
    )


@router.put("/workspaces/preferred")
async def prefer_workspace(request: Request) -> Response:
    """`{workspace}`: where the caller works when they name none; null takes that back."""
    given = await _fields(request, workspace=str)
    await _services(request).workspaces.prefer(request.scope["principal"], given["workspace"])
    return json_response({"preferred": given["workspace"]})


def _token(row: Any) -> dict[str, Any]:
    """A token's row as it is shown: everything but its digest."""
    fields = ("id", "name", "user_id", "user_name", "role", "created_by", "created_at", "expires_at", "revoked_at")
    return {**{name: getattr(row, name) for name in fields}, "last_used_at": row.last_used_at}
