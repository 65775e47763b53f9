"""Answers: JSON, and errors with the status they leave with, which a table derives from the exception's class."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from starlette.responses import Response

from skyinfra.model import exceptions as public
from skyinfra.model.errors_wire import to_wire
from skyinfra.store.database import NoSpace
from skyinfra.wire.errors import error_body

__all__ = ["HttpError", "JobNotFound", "json_response", "no_space", "respond", "status_of"]


class HttpError(Exception):
    """An answer that has a status of its own."""

    def __init__(self, status: int, kind: str, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = error_body(kind, message, hint=hint)


class JobNotFound(HttpError):
    """There is no such job on that cluster. Not a public class: clients know it by this name in `type`."""

    def __init__(self, message: str) -> None:
        super().__init__(404, "JobNotFound", message)


_STATUS: dict[type[Exception], int] = {
    public.ClusterDoesNotExist: 404,
    public.RequestAlreadyExistsError: 409,
    public.ClusterNotUpError: 409,
    public.PermissionDeniedError: 403,
    public.InvalidWorkspaceNameError: 400,
    public.WorkspaceAmbiguousError: 400,
    public.ApiServerAuthenticationError: 401,
    public.APIVersionMismatchError: 400,
    public.NotSupportedError: 400,
    public.ServerTemporarilyUnavailableError: 503,
    NoSpace: 507,
    public.SkyletUnavailableError: 503,
    ValueError: 400,
    TypeError: 400,
}


def status_of(error: Exception) -> int:
    """The nearest class that has a status decides; 500 is for what nobody expected."""
    if isinstance(error, HttpError):
        return error.status
    return next((_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS), 500)


def no_space(folder: Path, needed_bytes: int = 0) -> HttpError:
    """What is said when nothing can be stored; `needed_bytes` when that is known."""
    stat = os.statvfs(folder)
    free = stat.f_bavail * stat.f_frsize >> 20
    needs = f", {needed_bytes >> 20} MiB are needed" if needed_bytes else ""
    return HttpError(
        507,
        "RuntimeError",
        f"the server's disk is full: {free} MiB are free in {folder}{needs}",
        "make room there; what only reads works meanwhile, and nothing has to be started again",
    )


def respond(error: Exception) -> Response:
    if isinstance(error, HttpError):
        return json_response(error.body, error.status)
    return json_response(to_wire(error), status_of(error))


def json_response(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Compact JSON, without the framework's own conversions."""
    content = json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
    return Response(content, status, headers, media_type="application/json")
