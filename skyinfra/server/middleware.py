"""What every call passes: the version handshake, the token, and one frame that turns exceptions into answers.

Plain ASGI, because the framework's own middleware costs a task and two queues per call.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from skyinfra.model.exceptions import (
    ApiServerAuthenticationError,
    APIVersionMismatchError,
    ServerTemporarilyUnavailableError,
    with_hint,
)
from skyinfra.server import log as server_log
from skyinfra.server.answers import no_space, respond, status_of
from skyinfra.server.services import Services
from skyinfra.store.database import NoSpace
from skyinfra.wire import versions

__all__ = ["Gate"]

_say = server_log.get("http")
_OWN_VERSIONS = [
    (versions.API_HEADER.encode(), str(versions.API_VERSION).encode()),
    (versions.VERSION_HEADER.encode(), versions.PRODUCT_VERSION.encode()),
]
OPEN_PATHS = frozenset({"/v1/health"})
#: What a server that stands by answers, too.
ALWAYS_PATHS = OPEN_PATHS | {"/v1/version", "/v1/shutdown", "/v1/server-log"}

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]


class Gate:
    def __init__(self, app: Any, services: Services) -> None:
        self._app = app
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def send_with_versions(message: Any) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message["headers"], *_OWN_VERSIONS]
            await send(message)

        try:
            await self._admit(scope)
            await self._app(scope, receive, send_with_versions)
        except Exception as error:  # the outermost frame of a call
            if isinstance(error, NoSpace):
                error = no_space(self._services.settings.home.root)
            if status_of(error) == 500:
                _say.error("a call failed", path=scope["path"], exc_info=error)
            if started:
                raise  # half an answer is out: only closing the connection says that it is not whole
            await respond(error)(scope, receive, send_with_versions)

    async def _admit(self, scope: Scope) -> None:
        headers = dict(scope["headers"])
        principal = None
        if scope["path"] not in OPEN_PATHS:
            address = (scope.get("client") or ("unknown",))[0]
            principal = await self._services.tokens.resolve(headers.get(b"authorization"), address)
            if principal is None:
                raise ApiServerAuthenticationError(f"http://{headers.get(b'host', b'').decode('latin-1')}")
        api = headers.get(versions.API_HEADER.encode())
        if versions.client_too_old(api.decode("latin-1") if api is not None else None):
            raise APIVersionMismatchError(
                f"this client's API is too old for the server (skyinfra {versions.PRODUCT_VERSION}), which "
                f"needs at least {versions.MIN_API_VERSION}: upgrade the client"
            )
        if not self._services.acting and scope["path"] not in ALWAYS_PATHS:
            raise with_hint(
                ServerTemporarilyUnavailableError("this server stands by, or is coming up"),
                f"another one acts on its database: {self._services.leader.other or '(unknown)'}",
            )
        scope["principal"] = principal
