"""Wait for a request at the terminal: show what it does, and let it be left with Ctrl-C and rejoined."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from typing import IO, Any

from skyinfra.cli import out
from skyinfra.cli.failures import Left
from skyinfra.client import requests, stream
from skyinfra.model import exceptions

__all__ = ["leaving", "show", "value_of"]


def value_of(request_id: Any) -> Any:
    """The request's value, its progress shown on standard error meanwhile. Raises as `sky.get`, and `Left`."""
    if isinstance(request_id, requests.AnsweredId):
        return requests.get(request_id)
    rejoin = f"rejoin it with `skyinfra api logs {request_id}`"
    with leaving(f"the request goes on; {rejoin}"):
        try:
            show(request_id)
            return requests.get(request_id)
        except exceptions.ApiServerConnectionError as error:
            hint = getattr(error, "hint", None)
            raise exceptions.with_hint(error, f"{hint}; {rejoin}" if hint else rejoin) from error


def show(request_id: str, output: IO[str] | None = None, follow: bool = True) -> None:
    """What a request does, on standard error unless `output` is given, to its end if `follow`."""
    from skyinfra.cli.painter import Painter

    with Painter(output) as painter:
        for event in stream.events(request_id, follow):
            painter.show(event)


@contextlib.contextmanager
def leaving(hint: str) -> Iterator[None]:
    """Turn Ctrl-C and Ctrl-Z into `Left`, after saying how to come back."""

    def on_suspend(_number: int, _frame: Any) -> None:
        raise Left(146)

    before = signal.signal(signal.SIGTSTP, on_suspend)
    try:
        yield
    except KeyboardInterrupt:
        out.say("")
        out.say(hint)
        raise Left(130) from None
    except Left:
        out.say("")
        out.say(hint)
        raise
    finally:
        signal.signal(signal.SIGTSTP, before)
