"""The SDK as coroutines: `await sdk_async.launch(task)` hands the request in, waits, and gives its value.

Nothing is written twice: a twin is made from the function of `skyinfra.client.sdk` when it is first used, with its
parameters, its docstring and, where it hands in a request, `stream_logs`: how the request's log is shown while it runs
(None: not at all). The calls run in daemon threads, one each, so that waiting for many requests keeps neither the event
loop nor the interpreter's end waiting. Giving up on a coroutine does not cancel its request; `api_cancel` does.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import threading
from collections.abc import Callable, Coroutine
from dataclasses import asdict, dataclass
from typing import Any

from skyinfra.client import sdk

__all__ = ["DEFAULT_STREAM_CONFIG", "NAMES", "StreamConfig"]

NAMES = frozenset(
    (
        *("get", "stream_and_get", "check", "enabled_clouds", "list_accelerators", "list_accelerator_counts"),
        *("optimize", "workspaces", "launch", "exec", "tail_logs", "download_logs", "start", "down", "stop"),
        *("autostop", "queue", "job_status", "cancel", "status", "endpoints", "cost_report", "storage_ls"),
        *("storage_delete", "local_up", "local_down", "ssh_up", "ssh_down", "realtime_kubernetes_gpu_availability"),
        *("kubernetes_node_info", "status_kubernetes", "api_cancel", "api_status", "dashboard", "api_info"),
        *("api_stop", "api_server_logs", "api_login"),
    )
)
"""What SkyPilot mirrors. A name is here as soon as `skyinfra.client.sdk` has it."""


@dataclass(frozen=True)
class StreamConfig:
    """How a request's log is shown; the parameters of `stream_and_get`."""

    log_path: str | None = None
    tail: int | None = None
    follow: bool = True
    output_stream: Any = None


DEFAULT_STREAM_CONFIG = StreamConfig()

Twin = Callable[..., Coroutine[Any, Any, Any]]


def __getattr__(name: str) -> Twin:
    function = getattr(sdk, name, None) if name in NAMES else None
    if function is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    twin = _twin(name, function)
    globals()[name] = twin
    return twin


def __dir__() -> list[str]:
    return sorted({*globals(), *(name for name in NAMES if getattr(sdk, name, None) is not None)})


def _twin(name: str, function: Callable[..., Any]) -> Twin:
    signature = inspect.signature(function)
    hands_in = str(signature.return_annotation).startswith("RequestId[") and name not in ("get", "stream_and_get")
    signature = _public(signature, hands_in)

    @functools.wraps(function)
    async def call(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        stream_logs = bound.arguments.pop("stream_logs", DEFAULT_STREAM_CONFIG) if hands_in else None
        return await _in_thread(lambda: _outcome(function(*bound.args, **bound.kwargs), hands_in, stream_logs))

    call.__signature__ = signature  # type: ignore[attr-defined]  # what callers see
    call.__module__ = __name__
    return call


def _public(signature: inspect.Signature, hands_in: bool) -> inspect.Signature:
    """Without internal parameters; `stream_logs` comes after all that may be given by place."""
    shown = [one for one in signature.parameters.values() if not one.name.startswith("_")]
    if hands_in:
        extra = inspect.Parameter(
            "stream_logs",
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            default=DEFAULT_STREAM_CONFIG,
            annotation="StreamConfig | None",
        )
        place = sum(1 for one in shown if one.kind is not inspect.Parameter.KEYWORD_ONLY)
        shown.insert(place, extra)
    value = str(signature.return_annotation).removeprefix("RequestId[").removesuffix("]" if hands_in else "")
    return signature.replace(parameters=shown, return_annotation=value)


def _outcome(answer: Any, hands_in: bool, stream_logs: StreamConfig | None) -> Any:
    if not hands_in:
        return answer
    if stream_logs is None:
        return sdk.get(answer)
    return sdk.stream_and_get(answer, **asdict(stream_logs))


async def _in_thread(call: Callable[[], Any]) -> Any:
    """`asyncio.to_thread`, but for a thread that nobody waits for in the end."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()
    context = contextvars.copy_context()

    def settle(value: Any, error: BaseException | None) -> None:
        if future.done():  # the coroutine was given up
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(value)

    def run() -> None:
        value, failure = None, None
        try:
            value = context.run(call)
        except BaseException as error:  # whatever it is belongs to who awaits
            failure = error
        try:
            loop.call_soon_threadsafe(settle, value, failure)
        except RuntimeError:
            pass  # the loop was closed: nobody awaits any more

    threading.Thread(target=run, name="skyinfra-async", daemon=True).start()
    return await future
