"""Requests: hand one in, wait for it, read its log, list and cancel them.

A read verb is answered in the same round trip that asks; its answer rides on the id, so `get` costs no second call.
"""

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from skyinfra.client import transport
from skyinfra.model.records import Record
from skyinfra.model.requests import RequestId
from skyinfra.runtime.boundary import boundary

__all__ = ["AnsweredId", "api_cancel", "api_status", "get", "stream_and_get", "submit"]

T = TypeVar("T")

WAIT_S = 20.0
WAIT_MARGIN_S = 40.0


class AnsweredId(RequestId[T]):
    """A request's id together with its final answer."""

    verb: str
    answer: dict[str, Any]

    @classmethod
    def of(cls, request_id: str, verb: str, answer: dict[str, Any]) -> AnsweredId[T]:
        self = cls(request_id)
        self.verb = verb
        self.answer = answer
        return self


def submit(verb: str, body: dict[str, Any], timeout_s: float = transport.READ_S) -> RequestId[Any]:
    """Hand a request in, once however often the call has to be repeated. Returns its id."""
    key = str(uuid.uuid4())
    boundary("client.submit.before")
    reply = transport.call("POST", transport.path("requests", verb), body, key=key, timeout_s=timeout_s).json()
    boundary("client.submit.made")
    if reply.get("status") in ("SUCCEEDED", "FAILED", "CANCELLED") and ("result" in reply or "error" in reply):
        return AnsweredId.of(reply["id"], verb, reply)
    return RequestId(reply["id"])


def get(request_id: RequestId[T]) -> T:
    """Wait for a request and return its value.

    Raises the server-side exception of a failed request, `RequestCancelled` for a cancelled one, and `RuntimeError`
    for an id that is unknown or not unique.
    """
    if isinstance(request_id, AnsweredId):
        return _value(request_id.verb, request_id.answer, request_id)
    if not request_id:
        raise RuntimeError("an empty id matches every request; give an id or the beginning of one")
    where = transport.path("requests", request_id, "result", wait_s=int(WAIT_S))
    boundary("client.wait.before")
    while True:
        reply = transport.call("GET", where, timeout_s=WAIT_S + WAIT_MARGIN_S, patient=True)
        if reply.status == 202:
            continue
        answer = reply.json()
        return _value(answer.get("name") or _name(request_id, answer), answer, request_id)


def _name(request_id: str, answer: dict[str, Any]) -> str:
    """The verb of a request that someone else handed in; only a successful one's value depends on it."""
    if answer.get("status") != "SUCCEEDED" or answer.get("result") is None:
        return ""
    return transport.call("GET", transport.path("requests", request_id), patient=True).json().get("name") or ""


def _value(verb: str, answer: dict[str, Any], request_id: str) -> Any:
    from skyinfra.client import decode

    status = answer.get("status")
    if status == "SUCCEEDED":
        return decode.value_of(verb, answer.get("result"))
    from skyinfra.model import errors_wire, exceptions

    error = answer.get("error")
    if error:
        raise errors_wire.from_wire(error)
    if status == "CANCELLED":
        raise exceptions.RequestCancelled(f"request {request_id} was cancelled")
    raise RuntimeError(f"request {request_id} ended as {status} without saying why")


def stream_and_get(
    request_id: RequestId[T] | None = None,
    log_path: str | None = None,
    tail: int | None = None,
    follow: bool = True,
    output_stream: Any = None,
    relay_rich_status: bool = False,
) -> T | None:
    """Print a request's log (to `output_stream`, else standard output) and return its value; None without `follow`.

    Without an id: the caller's latest request. Raises as `get`; `ClientError` for an unknown id or for `log_path`,
    which names a file of SkyPilot's server that does not exist here.
    """
    from skyinfra.model.exceptions import ClientError

    if log_path is not None:
        raise ClientError("log_path: this server keeps logs by request; give the request's id")
    found = request_id if request_id is not None else _latest()
    out = output_stream or sys.stdout
    if not isinstance(found, AnsweredId):
        for text in _texts(_known_events(found, follow), tail):
            out.write(text + "\n")
            out.flush()
    return get(found) if follow else None


def _known_events(request_id: str, follow: bool) -> Iterator[dict[str, Any]]:
    from skyinfra.client import stream
    from skyinfra.model.exceptions import ClientError

    try:
        yield from stream.events(request_id, follow)
    except RuntimeError as error:
        if transport.status_of(error) in (400, 404):  # none or several such requests
            raise ClientError(str(error)) from error
        raise


def _texts(events: Iterator[dict[str, Any]], tail: int | None) -> Iterator[str]:
    """The lines for people; only the last `tail` when given (which, as in SkyPilot, waits for the end)."""
    lines = (event["text"] for event in events if event.get("kind") == "log")
    if tail is None:
        yield from lines
        return
    from collections import deque

    yield from deque(lines, maxlen=tail)


def _latest() -> RequestId[Any]:
    from skyinfra.model.exceptions import ClientError

    rows = api_status(all_status=True, limit=1)
    if not rows:
        raise ClientError("there is no request to stream")
    return RequestId(rows[0]["request_id"])


def api_status(
    request_ids: Sequence[RequestId[Any] | str] | None = None,
    all_status: bool = False,
    limit: int | None = None,
    fields: Sequence[str] | None = None,
    cluster_name: str | None = None,
    *,
    _all_users: bool = True,
) -> list[Record]:
    """Requests, newest first: the active ones, all of them with `all_status`, or those with the given ids."""
    where = transport.path(
        "requests",
        all=int(all_status or bool(request_ids)),
        limit=limit,
        cluster=cluster_name,
        ids=",".join(request_ids) if request_ids else None,
        all_users=None if _all_users else 0,
    )
    from skyinfra.model.states import RequestStatus

    rows = [Record(row) for row in transport.call("GET", where).json()["requests"]]
    for row in rows:
        row["status"] = RequestStatus.__members__.get(row.get("status", ""), row.get("status"))
    return [Record({name: row.get(name) for name in fields}) for row in rows] if fields else rows


def api_cancel(
    request_ids: RequestId[Any] | Sequence[RequestId[Any]] | str | Sequence[str] | None = None,
    all_users: bool = False,
    silent: bool = False,
) -> RequestId[list[str]]:
    """Cancel requests: the given ones, else all active ones of the caller (of everybody with `all_users`).

    `get` of the returned id gives the ids that were cancelled; unknown and finished requests are passed over.
    """
    wanted = [request_ids] if isinstance(request_ids, str) else request_ids
    cancelled: list[str] = []
    if wanted is None:
        where = transport.path("requests", all_users=1 if all_users else None)
        cancelled = transport.call("DELETE", where).json()["cancelled"]
    for request_id in wanted or ():
        cancelled += _cancel_one(request_id)
    del silent  # SkyPilot's SDK prints unless silent; this one leaves printing to its caller
    answer = {"status": "SUCCEEDED", "result": cancelled}
    return AnsweredId.of(str(uuid.uuid4()), "api_cancel", answer)


def _cancel_one(request_id: str) -> list[str]:
    try:
        return transport.call("DELETE", transport.path("requests", request_id)).json()["cancelled"]
    except RuntimeError as error:
        if transport.status_of(error) != 404:
            raise
        return []
