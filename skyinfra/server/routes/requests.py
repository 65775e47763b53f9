"""Requests over HTTP: submit, list, wait, follow, cancel. Thin: validation is `intake`'s, running is the engine's."""

from __future__ import annotations

import json
import os
import time
import uuid
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response, StreamingResponse

from skyinfra.model.errors_wire import to_wire
from skyinfra.model.states import RoleName
from skyinfra.server import intake
from skyinfra.server.answers import HttpError, json_response, no_space
from skyinfra.server.identity import Principal, Thing, authorize
from skyinfra.server.requests.ring import Answer
from skyinfra.server.services import Services
from skyinfra.store import operations, requests
from skyinfra.wire.versions import IDEMPOTENCY_HEADER

__all__ = ["router"]

router = APIRouter(prefix="/v1/requests")
MAX_BODY = 16 << 20
MAX_WAIT_S = 60.0
ROOM_BYTES = 16 << 20


def _services(request: Request) -> Services:
    return request.app.state.services


async def _body(request: Request) -> bytes:
    parts, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > MAX_BODY:
            raise HttpError(413, "ValueError", f"a request's body may have {MAX_BODY >> 20} MiB; files go to /v1/blobs")
        parts.append(chunk)
    return b"".join(parts)


@router.post("/{verb}", include_in_schema=False)  # each verb is described with its own body: see `openapi`
async def submit(verb: str, request: Request) -> Response:
    services, principal = _services(request), request.scope["principal"]
    body = intake.parse(verb, await _body(request))
    authorize(principal, verb)
    if verb in intake.READ_VERBS:
        return await _read(services, principal, verb, body)
    _require_room(services)
    existing = None if verb == "launch" else body["cluster_name"]
    workspace = await services.workspaces.of(principal, verb, body.get("workspace"), existing)
    new = intake.incoming(verb, body, principal, workspace, request.headers.get(IDEMPOTENCY_HEADER))
    request_id = await services.engine.accept(new)
    return json_response({"id": request_id, "status": "PENDING"}, 202)


def _require_room(services: Services) -> None:
    """A request needs room for more than its row: logs, operations, the stack. Raises `HttpError` 507."""
    home = services.settings.home.root
    stat = os.statvfs(home)
    if stat.f_bavail * stat.f_frsize < ROOM_BYTES:
        raise no_space(home, ROOM_BYTES)


async def _read(services: Services, principal: Principal, verb: str, body: dict[str, Any]) -> Response:
    """Answer at once, in one round trip, and remember the answer for who asks for it by id."""
    request_id = str(uuid.uuid4())
    try:
        name, requested = body.get("cluster_name"), body.get("workspace")
        if name is not None or requested:
            body["workspace"] = await services.workspaces.of(principal, verb, requested, name)
        result = await services.fleet.reads[verb](principal, body)
        status, text = "SUCCEEDED", b'"result":' + result
    except Exception as error:  # the outermost frame of a read: the error is its outcome, re-raised by the client
        status, text = "FAILED", b'"error":' + json.dumps(to_wire(error)).encode()
    answer = Answer(verb, principal.user_id, principal.user_name, time.time(), status, text)
    services.ring.put(request_id, answer)
    head = b'{"id":"%s","status":"%s",' % (request_id.encode(), answer.status.encode())
    return Response(head + answer.body + b"}", media_type="application/json")


@router.get("")
async def listing(
    request: Request,
    all: int = 0,
    limit: int | None = None,
    cluster: str | None = None,
    ids: str = "",
    all_users: int = 1,
) -> Response:
    """Requests, newest first; only active ones unless `all=1`. `all_users=0`: the caller's and the server's own."""
    services, principal = _services(request), request.scope["principal"]
    authorize(principal, "see requests")
    prefixes = [part for part in ids.split(",") if part]

    def read(db: Any) -> list[dict[str, Any]]:
        found = requests.listed(
            db,
            active_only=not (all or prefixes),
            limit=limit,
            cluster=cluster or None,
            prefixes=prefixes,
            user_id=None if all_users or prefixes else principal.user_id,
            internal_too=True,
            barred=principal.barred,
        )
        return _payloads(db, found)

    return json_response({"requests": await services.db.read(read)})


@router.get("/{request_id}")
async def one(request_id: str, request: Request) -> Response:
    """One request, by its id or a unique prefix of it."""
    services = _services(request)
    remembered = _remembered(request, request_id)
    if remembered is not None:
        return json_response(_read_payload(request_id, remembered))
    exact = await _resolve(request, request_id)

    def read(db: Any) -> list[dict[str, Any]]:
        row = requests.get(db, exact)
        return _payloads(db, [row] if row is not None else [])

    found = await services.db.read(read)
    if not found:  # retention was faster
        raise _unknown(request_id)
    return json_response(found[0])


@router.get("/{request_id}/result")
async def result(request_id: str, request: Request, wait_s: float = 20.0) -> Response:
    """The outcome; waits for it at most `wait_s`, then answers 202 and the client asks again."""
    services = _services(request)
    remembered = _remembered(request, request_id)
    if remembered is not None:
        head = b'{"status":"%s",' % remembered.status.encode()
        return Response(head + remembered.body + b"}", media_type="application/json")
    exact = await _resolve(request, request_id)
    await services.engine.wait(exact, min(max(wait_s, 0.0), MAX_WAIT_S))
    row = await services.db.read(lambda db: requests.get(db, exact))
    if row is None:
        raise _unknown(request_id)
    if row.status == "SUCCEEDED":
        return json_response({"status": row.status, "result": row.result})
    if row.status in requests.FINAL:
        return json_response({"status": row.status, "error": row.error})
    return json_response({"status": row.status}, 202)


@router.get("/{request_id}/stream")
async def stream(request_id: str, request: Request, offset: int = 0, follow: int = 1) -> Response:
    """The request's log, NDJSON, from a byte offset; ends when the request is final (or the server stops)."""
    services = _services(request)
    exact = await _resolve(request, request_id)
    row = await services.db.read(lambda db: requests.get(db, exact))
    if row is None:
        raise _unknown(request_id)
    if row.status in requests.FINAL:
        services.logs.ensure_end(exact, row.status)
    lines = services.logs.follow(exact, max(offset, 0), lambda: services.engine.is_active(exact), bool(follow))
    return StreamingResponse(lines, media_type="application/x-ndjson", headers={"X-Start-Offset": str(max(offset, 0))})


@router.delete("/{request_id}")
async def cancel(request_id: str, request: Request) -> Response:
    """Ask for its end. Finished requests are left alone."""
    services = _services(request)
    if _remembered(request, request_id) is not None:
        return json_response({"cancelled": []})
    exact = await _resolve(request, request_id)
    row = await services.db.read(lambda db: requests.get(db, exact))
    thing = Thing() if row is None else Thing(row.workspace, row.user_id)
    authorize(request.scope["principal"], "cancel", thing)
    return json_response({"cancelled": [exact] if await services.engine.cancel(exact) else []})


@router.delete("")
async def cancel_all(request: Request, all_users: int = 0) -> Response:
    """Ask for the end of all active requests of the caller, or of everybody."""
    services, principal = _services(request), request.scope["principal"]
    authorize(principal, "cancel everybody's requests" if all_users else "cancel", Thing(owner=principal.user_id))
    found = await services.db.read(
        lambda db: requests.listed(db, active_only=True, limit=None, user_id=None if all_users else principal.user_id)
    )
    cancelled = [row.id for row in found if not row.internal and await services.engine.cancel(row.id)]
    return json_response({"cancelled": cancelled})


def _remembered(request: Request, request_id: str) -> Answer | None:
    """The answer of a read, for who got it and for admins."""
    principal = request.scope["principal"]
    answer = _services(request).ring.get(request_id)
    if answer is None or principal.role is RoleName.ADMIN or answer.user_id == principal.user_id:
        return answer
    raise _unknown(request_id)


async def _resolve(request: Request, prefix: str) -> str:
    """The id meant. Requests of workspaces that are closed to the caller do not exist for them."""
    services, principal = _services(request), request.scope["principal"]
    authorize(principal, "see requests")
    found = await services.db.read(lambda db: requests.matching(db, prefix, principal.barred))
    if prefix in found:
        return prefix
    if len(found) == 1:
        return found[0]
    if not found:
        raise _unknown(prefix)
    raise HttpError(400, "RuntimeError", f"several requests begin with {prefix!r}", "give more of the id")


def _unknown(request_id: str) -> HttpError:
    return HttpError(404, "RuntimeError", f"there is no request {request_id!r}", "`skyinfra api status -a` lists them")


def _payloads(db: Any, rows: list[Any]) -> list[dict[str, Any]]:
    ids = [row.id for row in rows]
    steps, done = requests.steps_of(db, ids), operations.of_requests(db, ids)
    return [_payload(row, steps.get(row.id, []), done.get(row.id, [])) for row in rows]


def _payload(row: Any, steps: list[Any], done: list[Any]) -> dict[str, Any]:
    return {
        "request_id": row.id,
        "name": f"sky.{row.verb}",
        "entrypoint": row.entrypoint,
        "status": row.status,
        "created_at": row.created_at,
        "finished_at": row.finished_at,
        "user_id": row.user_id,
        "user_name": row.user_name,
        "cluster_name": row.cluster_name,
        "schedule_type": "long" if row.verb in ("launch", "exec", "revive") else "short",
        "status_msg": row.status_msg,
        "error": row.error,
        "return_value": row.result,
        "operations": [_operation(operation) for operation in done],
        "steps": [{"name": step.name, "state": step.state} for step in steps],
        "workspace": row.workspace,
    }


def _operation(row: Any) -> dict[str, Any]:
    fields = ("id", "kind", "state", "version", "changes", "started_at", "finished_at", "message")
    return {name: getattr(row, name) for name in fields}


def _read_payload(request_id: str, answer: Answer) -> dict[str, Any]:
    outcome = json.loads(b"{" + answer.body + b"}")
    return {
        "request_id": request_id,
        "name": f"sky.{answer.verb}",
        "entrypoint": "",
        "status": answer.status,
        "created_at": answer.at,
        "finished_at": answer.at,
        "user_id": answer.user_id,
        "user_name": answer.user_name,
        "cluster_name": None,
        "schedule_type": "short",
        "status_msg": "",
        "error": outcome.get("error"),
        "return_value": outcome.get("result"),
        "operations": [],
        "steps": [],
        "workspace": "default",
    }
