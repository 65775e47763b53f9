"""The launcher and its spare worker: real processes, and no engine where none is needed."""

from __future__ import annotations

import asyncio
import os

import pytest

from skyinfra.model.home import Home
from skyinfra.stacks import processes
from skyinfra.stacks.folder import OperationFolder
from skyinfra.stacks.launcher import Launcher
from skyinfra.stacks.operation import OperationRequest
from tests.contract.stacks.conftest import wait_for

pytestmark = pytest.mark.engine

STACK = "c-abcdef"


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path / "home")


def ours(home):
    return [process.pid for process in processes.marked(f"SKYINFRA_HOME={home.root}")]


def the_one(home):
    """The only process of ours, once it shows: while it changes its program it has no environment to be known by."""
    wait_for(lambda: len(ours(home)) == 1, what="one process of this state folder")
    [pid] = ours(home)
    return pid


def nothing(_):
    pass


def test_the_spare_takes_the_next_operation_and_another_takes_its_place(home):
    async def go():
        launcher = Launcher(home)
        await launcher.start()
        spare = the_one(home)
        result = await launcher.run(OperationRequest("op1", "destroy", STACK, None, fence=4), {}, nothing)
        assert (result.outcome, result.fence) == ("succeeded", 4)
        assert OperationFolder(home, "op1").worker().pid == spare
        next_spare = the_one(home)
        assert next_spare != spare
        await launcher.stop()
        assert ours(home) == []

    asyncio.run(go())


def test_a_spare_ends_when_its_server_does(home):
    async def go():
        launcher = Launcher(home)
        await launcher.start()
        launcher._spare.stdin.close()
        assert await asyncio.wait_for(launcher._spare.wait(), 20) == 0

    asyncio.run(go())


def test_a_spare_that_died_unnoticed_is_replaced_and_the_operation_runs(home):
    async def go():
        launcher = Launcher(home)
        await launcher.start()
        os.kill(launcher._spare.pid, 9)
        result = await launcher.run(OperationRequest("op1", "destroy", STACK, None), {}, nothing)
        assert (result.outcome, result.message) == ("succeeded", "")
        await launcher.stop()

    asyncio.run(go())


def test_credentials_reach_the_worker_with_the_request_and_not_before(home):
    async def go():
        launcher = Launcher(home, env={**os.environ, "AWS_SECRET_ACCESS_KEY": "canary"})
        await launcher.start()
        with open(f"/proc/{launcher._spare.pid}/environ", "rb") as file:
            assert b"canary" not in file.read()
        env = {"SKYINFRA_BACKEND_URL": "s3://bucket"}
        result = await launcher.run(OperationRequest("op1", "destroy", STACK, None), {}, nothing, env=env)
        assert (result.outcome, result.kind) == ("failed", "user")
        assert "s3://bucket" in result.message
        await launcher.stop()

    asyncio.run(go())


def test_events_arrive_in_order_and_equal_the_file(home):
    async def go():
        launcher = Launcher(home, spare=False)
        seen = []
        await launcher.run(OperationRequest("op1", "destroy", STACK, None), {}, seen.append)
        assert [event.seq for event in seen] == list(range(1, len(seen) + 1))
        assert (seen[0].kind, seen[-1].kind) == ("start", "end")
        assert seen == list(OperationFolder(home, "op1").events())

    asyncio.run(go())


def test_a_reader_that_fails_stops_the_operation(home):
    async def go():
        launcher = Launcher(home, spare=False)

        def fail(_):
            raise RuntimeError("reader")

        with pytest.raises(RuntimeError, match="reader"):
            await launcher.run(OperationRequest("op1", "destroy", STACK, None), {}, fail)
        assert ours(home) == []

    asyncio.run(go())


def test_settling_what_nobody_knows_is_nothing(home):
    assert asyncio.run(Launcher(home, spare=False).settle("op1")) is None


def test_a_stopping_launcher_takes_no_more_operations(home):
    async def go():
        launcher = Launcher(home, spare=False)
        await launcher.stop()
        with pytest.raises(RuntimeError, match="stopping"):
            await launcher.run(OperationRequest("op1", "destroy", STACK, None), {}, nothing)

    asyncio.run(go())
