"""JSON over HTTPS GET, with patience: what both REST price APIs need, on the standard library."""

from __future__ import annotations

import json
import random
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from skyinfra.model.exceptions import CloudError, with_hint

__all__ = ["JsonApi"]

_TRIES = 5
_REPLY_TIMEOUT_S = 60.0
_LONGEST_WAIT_S = 30.0
_PASSING = (429, 500, 502, 503, 504)


class JsonApi:
    """GETs of one API. `token` is asked before each request, so that a long refresh outlives one token."""

    def __init__(
        self,
        cloud: str,
        base: str,
        token: Callable[[], str] | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._cloud = cloud
        self._base = base.rstrip("/")
        self._token = token
        self._sleep = sleep

    def get(self, path: str, query: Mapping[str, str] | None = None) -> dict[str, Any]:
        """The answer to a path below the base, or to a whole URL under it (a next-page link).

        Throttling and server errors are tried again, up to 5 times. Raises `CloudError` with the API's words.
        """
        url = path if "://" in path else f"{self._base}/{path.lstrip('/')}"
        if _origin(url) != _origin(self._base):  # a link elsewhere would carry the token elsewhere
            raise CloudError(f"the next page lies outside {self._base}", self._cloud, "UnexpectedLink")
        if query:
            url += ("&" if "?" in url else "?") + urllib.parse.urlencode(query, quote_via=urllib.parse.quote)
        for attempt in range(1, _TRIES + 1):
            try:
                return self._once(url)
            except urllib.error.HTTPError as exc:
                if exc.code not in _PASSING or attempt == _TRIES:
                    raise self._refused(exc) from exc
                self._sleep(_wait_s(attempt, exc.headers.get("Retry-After")))
            except (urllib.error.URLError, TimeoutError, ConnectionError) as exc:
                if attempt == _TRIES:
                    raise CloudError(f"{self._base} does not answer: {exc}", self._cloud, "Unreachable") from exc
                self._sleep(_wait_s(attempt, None))
            except ValueError as exc:
                raise CloudError(f"{self._base} did not answer in JSON: {exc}", self._cloud, "BadAnswer") from exc
        raise AssertionError("the last try either returned or raised")

    def pages(self, path: str, query: Mapping[str, str] | None = None) -> Iterator[dict[str, Any]]:
        """All pages of a Google-style listing (`nextPageToken`)."""
        asked = dict(query or {})
        while True:
            page = self.get(path, asked)
            yield page
            token = page.get("nextPageToken")
            if not token:
                return
            asked["pageToken"] = token

    def _once(self, url: str) -> dict[str, Any]:
        request = urllib.request.Request(url, headers={"Accept": "application/json", "User-Agent": "skyinfra"})
        if self._token is not None:
            request.add_header("Authorization", f"Bearer {self._token()}")
        with urllib.request.urlopen(request, timeout=_REPLY_TIMEOUT_S) as reply:
            answer = json.loads(reply.read())
        if not isinstance(answer, dict):
            raise ValueError(f"expected an object, found {type(answer).__name__}")
        return answer

    def _refused(self, exc: urllib.error.HTTPError) -> CloudError:
        words = exc.read(2000).decode("utf-8", "replace").strip()
        refused = CloudError(f"{self._base} answered {exc.code}: {words or exc.reason}", self._cloud, str(exc.code))
        if exc.code in (401, 403):
            return with_hint(refused, "the credentials are missing, out of date, or lack the right to list prices")
        return refused


def _origin(url: str) -> tuple[str, str | None, int | None]:
    """Scheme, host and port, the default one spelled out: Azure's next links name port 443."""
    parts = urllib.parse.urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"https": 443, "http": 80}.get(parts.scheme)


def _wait_s(attempt: int, retry_after: str | None) -> float:
    """What the server asks for, else doubling with jitter; never long."""
    if retry_after is not None and retry_after.isdigit():
        return min(float(retry_after), _LONGEST_WAIT_S)
    return min(2.0 ** (attempt - 1) * random.uniform(0.5, 1.5), _LONGEST_WAIT_S)
