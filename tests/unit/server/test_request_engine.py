"""The request engine: steps are stored, resumed, parked, cancelled, and end exactly once."""

import asyncio
import json

import pytest

from skyinfra.model.exceptions import RequestAlreadyExistsError
from skyinfra.server.requests import engine as engine_module
from skyinfra.server.requests.steps import Handler, Park
from skyinfra.store import requests as rows

STEPS = ("one", "two", "three")
POINTS = [f"request.launch.{step}.{when}" for step in STEPS for when in ("before", "made", "recorded")]


class Crash(BaseException):
    """Stands for kill -9: nothing after it runs."""


def test_a_request_runs_its_steps_and_keeps_the_last_result(bench, run, make_handler):
    async def scenario():
        engine = await bench.engine(make_handler("launch", bench.steps(*STEPS)))
        request_id = await engine.accept(bench.incoming("launch"))
        assert await engine.wait(request_id, 5)
        row = await bench.row(request_id)
        assert (row.status, row.result) == ("SUCCEEDED", {"did": "three"})
        assert bench.calls == list(STEPS)

    run(scenario())


def test_steps_see_the_results_of_those_before_them(bench, run, make_handler):
    seen = {}

    async def two(ctx, prior):
        seen.update(prior)
        return {}

    async def scenario():
        engine = await bench.engine(make_handler("launch", bench.steps("one", "two", two=two)))
        await engine.wait(await engine.accept(bench.incoming("launch")), 5)

    run(scenario())
    assert seen == {"one": {"did": "one"}}


@pytest.mark.parametrize("point", POINTS)
def test_a_server_killed_at_any_boundary_resumes_from_the_first_missing_step(
    bench, run, make_handler, monkeypatch, point
):
    def crash_once(name):
        if name == point and not crashed:
            crashed.append(name)
            raise Crash

    crashed = []
    monkeypatch.setattr(engine_module, "boundary", crash_once)

    async def scenario():
        handlers = make_handler("launch", bench.steps(*STEPS))
        engine = await bench.engine(handlers)
        request_id = await engine.accept(bench.incoming("launch", body={"secret": "s3cr3t"}))
        await engine.wait(request_id, 5)
        before = list(bench.calls)
        await bench.db.close()

        engine = await bench.engine(handlers)
        await engine.wait(request_id, 5)
        row = await bench.row(request_id)
        assert row.status == "SUCCEEDED"
        assert row.result == {"did": "three"}
        step, when = point.split(".")[2:]
        position = STEPS.index(step) + (when == "recorded")
        assert bench.calls[len(before) :] == list(STEPS[position:])
        await bench.db.close()

    run(scenario())
    assert crashed


def test_the_same_key_and_body_give_the_same_request_once(bench, run, make_handler):
    async def scenario():
        engine = await bench.engine(make_handler("launch", bench.steps("one")))
        first = await engine.accept(bench.incoming("launch", key="k"))
        second = await engine.accept(bench.incoming("launch", key="k"))
        await engine.wait(first, 5)
        assert first == second
        assert bench.calls == ["one"]

    run(scenario())


def test_the_same_key_with_another_body_is_refused(bench, run, make_handler):
    async def scenario():
        engine = await bench.engine(make_handler("launch", bench.steps("one")))
        await engine.accept(bench.incoming("launch", key="k"))
        with pytest.raises(RequestAlreadyExistsError):
            await engine.accept(bench.incoming("launch", key="k", fingerprint=b"other"))

    run(scenario())


def test_bodies_are_sealed_at_rest_and_dropped_at_the_end(bench, run, make_handler):
    gate = asyncio.Event()

    async def one(ctx, prior):
        assert ctx.body == {"secret": "s3cr3t-value"}
        await gate.wait()
        return {}

    def on_disk():
        return b"".join(p.read_bytes() for p in bench.root.rglob("*") if p.is_file())

    async def scenario():
        engine = await bench.engine(make_handler("launch", bench.steps("one", one=one)))
        request_id = await engine.accept(bench.incoming("launch", body={"secret": "s3cr3t-value"}))
        sealed = await bench.db.read(lambda db: rows.sealed_body(db, request_id))
        assert sealed
        assert b"s3cr3t-value" not in on_disk()
        gate.set()
        await engine.wait(request_id, 5)
        assert await bench.db.read(lambda db: rows.sealed_body(db, request_id)) is None

    run(scenario())


def test_a_failing_step_ends_the_request_with_its_error(bench, run, make_handler):
    async def two(ctx, prior):
        raise ValueError("no such thing")

    async def scenario():
        engine = await bench.engine(make_handler("launch", bench.steps(*STEPS, two=two)))
        request_id = await engine.accept(bench.incoming("launch"))
        await engine.wait(request_id, 5)
        row = await bench.row(request_id)
        assert (row.status, row.error["type"], row.error["message"]) == ("FAILED", "ValueError", "no such thing")
        assert bench.calls == ["one", "two"]
        states = await bench.db.read(lambda db: rows.steps_of(db, [request_id]))
        assert [(s.name, s.state) for s in states[request_id]] == [("one", "done"), ("two", "failed")]
        assert json.loads(bench.log(request_id).splitlines()[-1])["status"] == "FAILED"

    run(scenario())


def test_a_parked_step_runs_again_at_its_time(bench, run, make_handler):
    async def one(ctx, prior):
        if "parked" not in ctx.memory:
            ctx.memory["parked"] = True
            raise Park(ctx.now() + 0.02, "not yet")
        return {"done": True}

    async def scenario():
        engine = await bench.engine(make_handler("launch", bench.steps("one", one=one)))
        request_id = await engine.accept(bench.incoming("launch"))
        await engine.wait(request_id, 5)
        assert (await bench.row(request_id)).status == "SUCCEEDED"
        assert bench.calls == ["one", "one"]

    run(scenario())


def test_a_cancelled_request_cleans_up_and_ends_cancelled(bench, run):
    cleaned, began = [], asyncio.Event()

    async def one(ctx, prior):
        began.set()
        await asyncio.Event().wait()

    async def clean(ctx, prior):
        cleaned.append(ctx.request_id)

    async def scenario():
        handlers = {"launch": Handler("launch", bench.steps("one", one=one), on_cancel=clean)}
        engine = await bench.engine(handlers)
        request_id = await engine.accept(bench.incoming("launch"))
        await began.wait()
        assert await engine.cancel(request_id)
        await engine.wait(request_id, 5)
        row = await bench.row(request_id)
        assert (row.status, row.error["type"]) == ("CANCELLED", "RequestCancelled")
        assert cleaned == [request_id]
        assert not await engine.cancel(request_id), "a finished request is left alone"

    run(scenario())


def test_a_cancel_survives_the_death_of_the_server(bench, run):
    cleaned = []

    async def clean(ctx, prior):
        cleaned.append(ctx.request_id)

    async def scenario():
        handlers = {"launch": Handler("launch", bench.steps("one"), on_cancel=clean)}
        await bench.engine({})
        engine = await bench.engine(handlers)
        new = bench.incoming("launch")
        engine._stopping = True  # stored, but not begun
        await engine.accept(new)
        await bench.db.write(lambda db: rows.request_cancel(db, new.id))
        engine = await bench.engine(handlers)
        await engine.wait(new.id, 5)
        assert (await bench.row(new.id)).status == "CANCELLED"
        assert bench.calls == []
        assert cleaned == [], "it had made nothing"

    run(scenario())


def test_a_stopped_server_parks_its_requests_and_the_next_one_ends_them(bench, run, make_handler):
    stop = asyncio.Event()

    async def two(ctx, prior):
        if not stop.is_set():
            stop.set()
            await asyncio.Event().wait()
        return {"second": True}

    async def scenario():
        handlers = make_handler("launch", bench.steps("one", "two", two=two))
        engine = await bench.engine(handlers)
        request_id = await engine.accept(bench.incoming("launch"))
        await stop.wait()
        await engine.shutdown(5)
        assert (await bench.row(request_id)).status == "WAITING"
        engine = await bench.engine(handlers)
        await engine.wait(request_id, 5)
        assert (await bench.row(request_id)).result == {"second": True}
        assert bench.calls == ["one", "two", "two"]

    run(scenario())


def test_a_second_request_waits_for_the_lane(bench, run):
    gate, began = asyncio.Event(), asyncio.Event()

    async def one(ctx, prior):
        began.set()
        await gate.wait()
        return {}

    async def scenario():
        engine = await bench.engine({"launch": Handler("launch", bench.steps("one", one=one), lane=True)})
        first = await engine.accept(bench.incoming("launch"))
        await began.wait()
        second = await engine.accept(bench.incoming("launch"))
        other = await engine.accept(bench.incoming("launch", cluster="another"))
        while (await bench.row(second)).status != "WAITING":
            await asyncio.sleep(0)
        assert (await bench.row(other)).status in ("PENDING", "RUNNING")
        assert engine.lanes.holder(("default", "c")) == first
        gate.set()
        await engine.wait(second, 5)
        await engine.wait(other, 5)
        assert (await bench.row(second)).status == "SUCCEEDED"
        assert engine.lanes.held() == {}

    run(scenario())


def test_down_cancels_what_was_in_the_lane_and_runs_after_it(bench, run):
    order, began = [], asyncio.Event()

    async def one(ctx, prior):
        if ctx.verb == "down":
            order.append("down")
            return
        began.set()
        await asyncio.Event().wait()

    async def clean(ctx, prior):
        await asyncio.sleep(0.02)
        order.append("cleaned")

    async def scenario():
        plan = bench.steps("one", one=one)
        engine = await bench.engine(
            {
                "launch": Handler("launch", plan, lane=True, on_cancel=clean),
                "down": Handler("down", plan, lane=True, clears_lane=True),
            }
        )
        running = await engine.accept(bench.incoming("launch"))
        await began.wait()
        waiting = await engine.accept(bench.incoming("launch"))
        assert engine.lanes.held() == {("default", "c"): [running, waiting]}
        elsewhere = await engine.accept(bench.incoming("launch", cluster="another"))
        down = await engine.accept(bench.incoming("down"))
        assert await engine.wait(down, 5)
        states = [(await bench.row(i)).status for i in (running, waiting, down)]
        assert states == ["CANCELLED", "CANCELLED", "SUCCEEDED"]
        assert order == ["cleaned", "down"], "the one that waited had nothing to clean; down came after"
        assert (await bench.row(elsewhere)).status == "RUNNING"
        await engine.shutdown(1)

    run(scenario())


def test_followers_get_every_byte_of_the_log_and_the_end(bench, run, make_handler):
    gate = asyncio.Event()

    async def one(ctx, prior):
        ctx.say("hello")
        await gate.wait()
        return {}

    async def scenario():
        engine = await bench.engine(make_handler("launch", bench.steps("one", one=one)))
        request_id = await engine.accept(bench.incoming("launch"))
        got = b""
        async for chunk in engine._logs.follow(request_id, 0, lambda: engine.is_active(request_id)):
            got += chunk
            gate.set()
        assert got.decode() == bench.log(request_id)
        kinds = [json.loads(line)["kind"] for line in got.splitlines()]
        assert kinds == ["step", "log", "step", "end"]

    run(scenario())
