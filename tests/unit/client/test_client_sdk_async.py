"""The coroutines are the SDK's functions: same parameters, same values, nothing that keeps a process from ending."""

import asyncio
import inspect
import subprocess
import sys
import threading

import pytest

import skyinfra as sky
from skyinfra.client import sdk, sdk_async
from skyinfra.model.requests import RequestId


def test_there_is_a_twin_for_every_function_that_is_mirrored_and_there() -> None:
    there = {name for name in sdk_async.NAMES if getattr(sdk, name, None) is not None}
    assert {"launch", "exec", "status", "tail_logs", "get", "optimize", "list_accelerators"} <= there
    assert there <= set(dir(sdk_async))
    for name in there:
        assert inspect.iscoroutinefunction(getattr(sdk_async, name)), name
    assert sky.sdk_async is sdk_async
    for name in ("reload_config", "Task", "nope"):
        with pytest.raises(AttributeError):
            getattr(sdk_async, name)


def test_a_twin_has_the_parameters_of_its_function_and_stream_logs_where_it_waits() -> None:
    sync, twin = inspect.signature(sdk.launch), inspect.signature(sdk_async.launch)
    assert [p for p in twin.parameters if p != "stream_logs"] == [p for p in sync.parameters if p[0] != "_"]
    by_place = [one.name for one in twin.parameters.values() if one.kind is one.POSITIONAL_OR_KEYWORD]
    assert by_place[-1] == "stream_logs"
    assert "stream_logs" not in inspect.signature(sdk_async.tail_logs).parameters
    assert "stream_logs" not in inspect.signature(sdk_async.get).parameters
    assert sdk_async.launch.__doc__ == sdk.launch.__doc__


def test_the_value_is_awaited_and_the_log_shown_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def queue(cluster_name: str, _hidden: int = 0) -> "RequestId[list[int]]":
        return RequestId(f"id-{cluster_name}")

    monkeypatch.setattr(sdk_async.sdk, "queue", queue, raising=False)
    monkeypatch.setattr(sdk_async.sdk, "get", lambda request_id: [request_id], raising=False)
    monkeypatch.setattr(
        sdk_async.sdk,
        "stream_and_get",
        lambda request_id, **how: seen.append(how) or [request_id, "shown"],
        raising=False,
    )
    queue.__annotations__["return"] = "RequestId[list[int]]"
    twin = sdk_async._twin("queue", queue)

    async def main() -> None:
        assert await twin("c", stream_logs=None) == ["id-c"]
        assert await twin("c") == ["id-c", "shown"]
        assert await twin("c", sdk_async.StreamConfig(tail=3)) == ["id-c", "shown"]
        with pytest.raises(TypeError, match="_hidden"):
            await twin("c", _hidden=1)

    asyncio.run(main())
    assert [how["tail"] for how in seen] == [None, 3]


def test_an_error_of_the_function_is_the_coroutine_s() -> None:
    with pytest.raises(TypeError, match="a Dag is needed"):
        asyncio.run(sdk_async.optimize("no dag"))


def test_a_coroutine_that_is_given_up_leaves_its_loop_alone() -> None:
    release, began = threading.Event(), threading.Event()

    async def main() -> None:
        def slow() -> None:
            began.set()
            release.wait(30)

        waiting = asyncio.create_task(sdk_async._in_thread(slow))
        while not began.is_set():
            await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    try:
        asyncio.run(main())
    finally:
        release.set()


def test_a_call_under_way_does_not_keep_the_interpreter_from_ending() -> None:
    code = (
        "import asyncio, threading\nfrom skyinfra.client import sdk_async\n"
        "async def main():\n"
        "    began = threading.Event()\n"
        "    asyncio.create_task(sdk_async._in_thread(lambda: (began.set(), threading.Event().wait())))\n"
        "    while not began.is_set(): await asyncio.sleep(0)\n"
        "asyncio.run(main())\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)
