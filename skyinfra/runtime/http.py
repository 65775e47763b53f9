"""A small HTTP/1.1 server on asyncio streams: keep-alive, Content-Length and chunked both ways, nothing else.

Owns the bytes on the wire and the limits on them. What a path means is the handler's business, and so is every
error that can be named; what is left becomes `internal`, without a traceback to the peer.
"""

import asyncio
import json
import traceback
from typing import Any, AsyncIterator, Awaitable, Callable, Dict, Optional
from urllib.parse import parse_qsl, unquote

from skyinfra.runtime.say import say

MAX_HEAD_BYTES = 32768
MAX_JSON_BYTES = 16 << 20
READ_BYTES = 262144
LINGER_S = 2.0
_REASONS = {200: "OK", 201: "Created", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 409: "Conflict"}


class HttpError(Exception):
    """An answer with ``{"type", "message"}``."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.status, self.kind = status, kind


class Response:
    """`body`, or `stream` for one that is sent as it comes (chunked unless `length` is known)."""

    def __init__(
        self,
        value: Any = None,
        status: int = 200,
        headers: Optional[Dict[str, str]] = None,
        stream: Optional[AsyncIterator[bytes]] = None,
        length: Optional[int] = None,
        content_type: str = "application/json",
    ) -> None:
        self.status, self.headers, self.stream, self.length = status, headers or {}, stream, length
        self.content_type = content_type
        self.body = b"" if stream is not None else json.dumps(value).encode()


class Request:
    def __init__(self, method: str, target: str, headers: Dict[str, str], reader: Any, writer: Any) -> None:
        path, _, query = target.partition("?")
        self.method, self.path, self.headers = method, unquote(path), headers
        self.query = dict(parse_qsl(query, keep_blank_values=True))
        self._reader, self._writer = reader, writer
        self._chunked = headers.get("transfer-encoding", "").lower() == "chunked"
        length = headers.get("content-length", "0")
        if not length.isdigit():
            raise HttpError(400, "bad_request", "Content-Length is not a number")
        self._left = 0 if self._chunked else int(length)
        self.consumed = not self._chunked and self._left == 0

    async def json(self) -> Dict[str, Any]:
        """The body as a JSON object. Raises `HttpError`."""
        raw = bytearray()
        async for data in self.chunks():
            raw += data
            if len(raw) > MAX_JSON_BYTES:
                raise HttpError(413, "bad_request", "a JSON body has {} bytes at most".format(MAX_JSON_BYTES))
        try:
            value = json.loads(bytes(raw) or b"{}")
        except (ValueError, RecursionError) as exc:
            raise HttpError(400, "bad_request", "the body is not JSON: {}".format(exc)) from exc
        if not isinstance(value, dict):
            raise HttpError(400, "bad_request", "the body is not a JSON object")
        return value

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives. Raises `HttpError`, `asyncio.IncompleteReadError`."""
        if not self.consumed and self.headers.get("expect", "").lower() == "100-continue":
            self._writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        while not self.consumed:
            if self._left == 0:
                await self._next_chunk()
                continue
            data = await self._reader.read(min(READ_BYTES, self._left))
            if not data:
                raise asyncio.IncompleteReadError(b"", self._left)
            self._left -= len(data)
            if self._left == 0:
                if self._chunked:
                    await self._reader.readexactly(2)
                else:
                    self.consumed = True
            yield data

    async def _next_chunk(self) -> None:
        line = await self._reader.readuntil(b"\r\n")
        try:
            self._left = int(line.split(b";")[0], 16)
        except ValueError:
            raise HttpError(400, "bad_request", "a chunk without a size") from None
        if self._left == 0:
            while await self._reader.readuntil(b"\r\n") != b"\r\n":
                pass  # trailers
            self.consumed = True


Handler = Callable[[Request], Awaitable[Response]]


class HttpServer:
    """Serves `handler` on a unix socket; `close` ends all connections."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._server: Optional[asyncio.AbstractServer] = None
        self._tasks: "set[asyncio.Task[None]]" = set()

    async def listen(self, sock: Any) -> None:
        self._server = await asyncio.start_unix_server(self._connection, sock=sock, limit=READ_BYTES)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(list(self._tasks), timeout=1.0)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while await self._exchange(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the peer left
        except asyncio.CancelledError:
            pass  # the agent ends
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request and its answer; False when the connection ends with it."""
        request: Optional[Request] = None
        try:
            request = await _read_request(reader, writer)
            response = await self._handler(request)
        except HttpError as exc:
            response = Response({"type": exc.kind, "message": str(exc)}, exc.status)
        except (ConnectionError, asyncio.IncompleteReadError):
            raise
        except Exception as exc:  # the outermost frame of a request: told in the agent's log, not to the peer
            say(traceback.format_exc())
            message = "{}: see the agent's log".format(type(exc).__name__)
            response = Response({"type": "internal", "message": message}, 500)
        keep = request is not None and request.consumed and request.headers.get("connection", "").lower() != "close"
        if response.stream is not None:
            await _send_stream(reader, writer, response)
            return False
        writer.write(_head(response, {"Content-Length": str(len(response.body))}, keep))
        if response.body and (request is None or request.method != "HEAD"):
            writer.write(response.body)
        await writer.drain()
        if request is not None and not request.consumed:
            await _linger(reader, writer)
        return keep


async def _linger(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Swallow the rest of a refused body: closing at once would break the peer's write before it reads the answer."""
    writer.write_eof()
    loop = asyncio.get_event_loop()
    timer = loop.call_later(LINGER_S, writer.close)
    left = MAX_JSON_BYTES
    try:
        while left > 0 and not writer.is_closing():
            data = await reader.read(READ_BYTES)
            if not data:
                return
            left -= len(data)
    finally:
        timer.cancel()


async def _read_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Request:
    """Raises `HttpError`, and `asyncio.IncompleteReadError` when the peer left."""
    try:
        raw = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        raw = b"." * (MAX_HEAD_BYTES + 1)
    if len(raw) > MAX_HEAD_BYTES:
        raise HttpError(431, "bad_request", "the head has {} bytes at most".format(MAX_HEAD_BYTES))
    first, *lines = raw[:-4].decode("latin-1").split("\r\n")
    parts = first.split(" ")
    if len(parts) != 3 or not parts[2].startswith("HTTP/1."):
        raise HttpError(400, "bad_request", "not HTTP/1.1")
    headers = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            raise HttpError(400, "bad_request", "a header without a colon")
        headers[name.strip().lower()] = value.strip()
    return Request(parts[0], parts[1], headers, reader, writer)


def _head(response: Response, extra: Dict[str, str], keep: bool) -> bytes:
    headers = {"Content-Type": response.content_type, **extra, **response.headers}
    if not keep:
        headers["Connection"] = "close"
    first = "HTTP/1.1 {} {}\r\n".format(response.status, _REASONS.get(response.status, "-"))
    return (first + "".join("{}: {}\r\n".format(*item) for item in headers.items()) + "\r\n").encode("latin-1")


async def _send_stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, response: Response) -> None:
    """Send until the stream ends or the peer leaves: a quiet log must not keep a dead follower for hours."""
    chunked = response.length is None
    how = {"Transfer-Encoding": "chunked"} if chunked else {"Content-Length": str(response.length)}
    writer.write(_head(response, how, False))
    sending = asyncio.ensure_future(_send_pieces(writer, response, chunked))
    leaving = asyncio.ensure_future(reader.read(1))
    try:
        await asyncio.wait([sending, leaving], return_when=asyncio.FIRST_COMPLETED)
        if sending.done():
            sending.result()
    finally:
        for task in (sending, leaving):
            task.cancel()
        await asyncio.gather(sending, leaving, return_exceptions=True)


async def _send_pieces(writer: asyncio.StreamWriter, response: Response, chunked: bool) -> None:
    assert response.stream is not None
    stream = response.stream
    try:
        async for data in stream:
            if data:
                writer.write(b"%x\r\n%b\r\n" % (len(data), data) if chunked else data)
                await writer.drain()
        if chunked:
            writer.write(b"0\r\n\r\n")
        await writer.drain()
    finally:
        closing = getattr(stream, "aclose", None)
        if closing is not None:
            await closing()
