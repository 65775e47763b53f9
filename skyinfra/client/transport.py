"""The only HTTP caller: standard library, one kept-alive connection per thread.

Owns addresses, the token, versions, retries and the translation of error replies into exceptions. A GET, HEAD or PUT is
repeated when its connection breaks, a POST only when it carries an idempotency key (or never reached the server).
`patient` calls belong to a request that a server has accepted: they outlast a restart of that server. Once this process
has reached it they start it again when it crashed, but not when it was stopped on purpose.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import IO, Any, NoReturn
from urllib.parse import quote

from skyinfra.client import endpoint

__all__ = ["API", "Reply", "Stream", "ask", "call", "open_stream", "path", "status_of", "version"]

API = 1
MIN_SERVER_API = 1

CONNECT_S = 5.0
READ_S = 60.0
STREAM_SILENCE_S = 60.0
"""A stream that says nothing for so long is asked for again at its offset: its server may have vanished silently."""
REMOTE_TRIES = 4
LOCAL_S = 20.0
"""How long a local server may refuse connections while its process lives (coming up, going down)."""
PATIENT_S = 600.0
STOPPED_S = 10.0

_DEBUG = os.environ.get("SKYINFRA_DEBUG") == "1"
_QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)
_thread = threading.local()
_reached: set[tuple[object, ...]] = set()
"""Servers that this process has been connected to; only ever added to, so it needs no lock."""


class Reply:
    """An answer below 400, read to its end."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, headers: http.client.HTTPMessage, body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    def json(self) -> Any:
        return json.loads(self.body) if self.body else None


class Stream:
    """An answer that arrives as it is made. `chunks` ends when the server ended it properly and raises
    `ConnectionError` when the connection broke, so that nobody takes half for whole."""

    def __init__(self, connection: http.client.HTTPConnection, response: http.client.HTTPResponse) -> None:
        self._connection = connection
        self._response = response
        self.headers = response.headers

    def chunks(self, size: int = 65536) -> Iterator[bytes]:
        while True:
            try:
                chunk = self._response.read1(size)
            except (OSError, http.client.HTTPException, ValueError) as error:
                raise ConnectionError("the stream broke") from error
            if not chunk:
                return
            _acknowledge_at_once(self._connection)
            yield chunk

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._connection.close()


def path(*parts: object, **query: object) -> str:
    """``/v1/…`` from its parts, quoted; query values that are None are left out."""
    text = "/v1/" + "/".join(quote(str(part), safe="") for part in parts)
    pairs = [f"{name}={quote(str(value), safe='')}" for name, value in query.items() if value is not None]
    return text + ("?" + "&".join(pairs) if pairs else "")


def call(
    method: str,
    target_path: str,
    body: Any = None,
    *,
    key: str | None = None,
    timeout_s: float = READ_S,
    patient: bool = False,
    start: endpoint.Start | None = None,
    upload: IO[bytes] | None = None,
    upload_bytes: int = 0,
) -> Reply:
    """One call, retried as the module says.

    Raises what the server's error body names, `ApiServerConnectionError`, `ApiServerAuthenticationError` or
    `APIVersionMismatchError`.
    """
    payload: Any = None
    headers: dict[str, str] = {}
    if upload is not None:
        payload, headers["Content-Length"] = upload, str(upload_bytes)
    elif body is not None:
        payload, headers["Content-Type"] = json.dumps(body).encode(), "application/json"
    if key is not None:
        headers["Idempotency-Key"] = key
    retry = _Retry(patient, repeatable=method != "POST" or key is not None, start=start)
    while True:
        if upload is not None:
            upload.seek(0)
        try:
            reply = _exchange(_line(retry), method, target_path, payload, headers, timeout_s)
        except (OSError, http.client.HTTPException) as error:
            _drop()
            retry.after(error)
            continue
        except BaseException:
            _drop()  # an interrupted exchange leaves half an answer on the connection
            raise
        if reply.status < 400:
            return reply
        if reply.status == 401:
            _drop()  # the token of the next call is read afresh
        if not retry.worthwhile(reply):
            _raise_error(reply)


def open_stream(target_path: str, *, patient: bool = False, accept_silence_s: float = STREAM_SILENCE_S) -> Stream:
    """A GET whose body is read as it comes, on a connection of its own. Raises like `call`."""
    retry = _Retry(patient, repeatable=True, start=None)
    while True:
        line = None
        try:
            line = _connect(retry)
            response = line.ask("GET", target_path, None, {}, accept_silence_s)
            if response.status < 400:
                return Stream(line.http, response)
            reply = Reply(response.status, response.headers, response.read())
        except (OSError, http.client.HTTPException) as error:
            if line is not None:
                line.http.close()
            retry.after(error)
            continue
        line.http.close()
        if not retry.worthwhile(reply):
            _raise_error(reply)


def ask(target: endpoint.Target, target_path: str) -> Reply:
    """One GET of a server that need not be the configured one, once. Raises like `call`."""
    try:
        line = _Line(target)
        response = line.ask("GET", target_path, None, {}, READ_S)
        reply = Reply(response.status, response.headers, response.read())
        line.http.close()
    except (OSError, http.client.HTTPException) as error:
        said = f"could not reach an API server at {target.url}: {error or type(error).__name__}"
        raise endpoint.unreachable(said, "is the address right, and does the server run?", target.url) from error
    if reply.status >= 400:
        _raise_error(reply, target.url)
    return reply


class _Line:
    """A connected connection and what every request on it carries."""

    __slots__ = ("headers", "http", "local", "prefix", "used")

    def __init__(self, target: endpoint.Target) -> None:
        kind = http.client.HTTPSConnection if target.scheme == "https" else http.client.HTTPConnection
        self.http = kind(target.host, target.port, timeout=CONNECT_S, blocksize=1 << 18)
        self.prefix = target.path
        self.local = target.local
        self.used = False
        self.headers = {
            "Authorization": f"Bearer {target.token}",
            "X-Skyinfra-Api": str(API),
            "X-Skyinfra-Version": version(),
        }
        self.http.connect()

    def ask(
        self, method: str, target_path: str, payload: Any, headers: dict[str, str], timeout_s: float
    ) -> http.client.HTTPResponse:
        """Send a request; the answer's head, its version checked."""
        sock: socket.socket | None = self.http.sock
        if sock is not None:
            sock.settimeout(timeout_s)
        if _DEBUG:
            print(f"> {method} {self.prefix}{target_path}", file=sys.stderr)
        self.http.request(method, self.prefix + target_path, body=payload, headers={**self.headers, **headers})
        _acknowledge_at_once(self.http)
        response = self.http.getresponse()
        _check_version(response)
        return response


class _Retry:
    """Whether and when a broken call is tried again."""

    def __init__(self, patient: bool, repeatable: bool, start: endpoint.Start | None) -> None:
        # A remote server that this process has never reached is rather a wrong address than one that restarts.
        self._patient = patient and (_wanted() in _reached or endpoint.given_endpoint() is None)
        self._repeatable = repeatable
        self._began = time.monotonic()
        self._failures = 0
        self.start: endpoint.Start = start or ("crashed" if patient and _wanted() in _reached else "yes")
        self.reached = False
        """A connection was there, so the server may have seen the call."""
        self.stale = False
        """That connection had been idle: its server may have closed it long before."""
        self.local = False

    def after(self, error: Exception) -> None:
        """Wait before the next try, or raise `ApiServerConnectionError`."""
        if self.reached and not self._repeatable:
            self._give_up(error)
        if self.stale:
            self.stale = False
            return
        self._failures += 1
        waited_s = time.monotonic() - self._began
        limit_s = PATIENT_S if self._patient else LOCAL_S
        if (self.local or self._patient) and waited_s > limit_s:
            self._give_up(error)
        if not (self.local or self._patient) and self._failures >= REMOTE_TRIES:
            self._give_up(error)
        time.sleep(min(0.05 * 2 ** min(self._failures - 1, 5), 1.0))

    def worthwhile(self, reply: Reply) -> bool:
        """True after a pause when an error reply asks for patience (503) and this call has some left."""
        if reply.status != 503 or not self._repeatable or _error_body(reply).get("type") not in _BUSY:
            return False
        self._failures += 1
        if time.monotonic() - self._began > (PATIENT_S if self._patient else LOCAL_S):
            return False
        time.sleep(min(0.1 * 2 ** min(self._failures - 1, 4), 1.0))
        return True

    def _give_up(self, error: Exception) -> NoReturn:
        given = endpoint.given_endpoint()
        where = f" at {given}" if given else ""
        asked = f"is the endpoint right ({endpoint.ENDPOINT_VARIABLES[0]}, or `skyinfra api login`)?"
        hint = asked if given else "see `skyinfra api status` and server.log"
        message = f"could not reach the API server{where}: {error or type(error).__name__}"
        raise endpoint.unreachable(message, hint) from error


_BUSY = ("ServerTemporarilyUnavailableError",)


def _wanted() -> tuple[object, ...]:
    """The server that the environment names, as seen by this process (a fork must not share a connection)."""
    return os.getpid(), endpoint.given_endpoint(), os.environ.get("SKYINFRA_HOME"), os.environ.get("HOME")


def _line(retry: _Retry) -> _Line:
    """This thread's connection, made when there is none for the server that the environment names."""
    wanted = _wanted()
    line: _Line | None = getattr(_thread, "line", None)
    if line is None or _thread.wanted != wanted:
        _drop()
        line = _connect(retry)
        _thread.line, _thread.wanted = line, wanted
    retry.local, retry.reached, retry.stale = line.local, True, line.used
    return line


def _connect(retry: _Retry) -> _Line:
    """A new connection; a local server that was stopped gets `STOPPED_S` to be started again by someone."""
    from skyinfra.model.exceptions import ApiServerConnectionError

    retry.reached = retry.stale = False
    deadline = time.monotonic() + (STOPPED_S if retry.start == "crashed" else 0.0)
    while True:
        try:
            target = endpoint.locate(retry.start)
            break
        except ApiServerConnectionError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.1)
    retry.local = target.local
    line = _Line(target)
    _reached.add(_wanted())
    return line


def _acknowledge_at_once(connection: http.client.HTTPConnection) -> None:
    """A server with Nagle's algorithm on holds a body's next piece back until our delayed ACK of the last one: 40 ms on
    every call after a connection's first, and on every log line. The kernel forgets the setting, so it is set again."""
    sock: socket.socket | None = connection.sock
    if sock is not None and _QUICKACK is not None:
        sock.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)


def version() -> str:
    from skyinfra import __version__

    return __version__


def _drop() -> None:
    line: _Line | None = getattr(_thread, "line", None)
    if line is not None:
        line.http.close()
        _thread.line = None


def _exchange(
    line: _Line, method: str, target_path: str, payload: Any, headers: dict[str, str], timeout_s: float
) -> Reply:
    response = line.ask(method, target_path, payload, headers, timeout_s)
    reply = Reply(response.status, response.headers, response.read())
    line.used = True
    if line.http.sock is None:  # the server said `Connection: close`
        _drop()
    return reply


def _check_version(response: http.client.HTTPResponse) -> None:
    told = response.headers.get("X-Skyinfra-Api")
    if told is not None and told.isdigit() and int(told) < MIN_SERVER_API:
        from skyinfra.model.exceptions import APIVersionMismatchError

        theirs = response.headers.get("X-Skyinfra-Version", "?")
        raise APIVersionMismatchError(
            f"the API server (version {theirs}, API {told}) is too old for this client (version {version()}, API {API})"
        )


def _error_body(reply: Reply) -> dict[str, Any]:
    try:
        body = reply.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def status_of(error: BaseException) -> int | None:
    """The HTTP status behind an exception that `call` or `open_stream` raised; None when there was no answer."""
    return getattr(error, "_http_status", None)


def _raise_error(reply: Reply, url: str | None = None) -> NoReturn:
    error = _meaning(reply, url)
    error._http_status = reply.status  # type: ignore[attr-defined]
    raise error


def _meaning(reply: Reply, url: str | None) -> Exception:
    from skyinfra.model import errors_wire, exceptions

    body = _error_body(reply)
    if reply.status == 401:
        where = url or endpoint.given_endpoint() or "this machine"
        elsewhere = where != "this machine"
        hint = (
            "log in with `skyinfra api login -e ADDRESS -t sky_…`; an admin of the server makes tokens"
            if elsewhere
            else f"the token is read from ${endpoint.TOKEN_VARIABLES[0]} or {endpoint.Home.from_env().token}"
        )
        return exceptions.with_hint(exceptions.ApiServerAuthenticationError(where), hint, body.get("message"))
    if "type" not in body:
        text = reply.body[:200].decode(errors="replace").strip()
        return RuntimeError(f"the API server answered {reply.status}: {text or 'nothing'}")
    return errors_wire.from_wire(body)
