"""Neighbours in version work together; those too far apart are refused in one line, or brought up to date.

And a jump of the clock, which is a disagreement of another kind, moves no deadline.
"""

import re
import time

import pytest
from previous_version import recorded

from skyinfra.runtime.protocol import Event, Health, JobRow, load
from skyinfra.server.app import describe
from skyinfra.stacks import engine_call
from skyinfra.store import requests
from skyinfra.wire import versions
from skyinfra.wire.bodies import VERB_BODIES

NOW, TOO_OLD = versions.API_VERSION, versions.MIN_API_VERSION - 1


@pytest.mark.parametrize(("api", "status"), [(NOW, 200), (NOW + 1, 200), (TOO_OLD, 400)])
def test_a_newer_client_is_served_and_one_too_old_is_refused(on_server, api, status):
    async def scenario(client):
        headers = {"X-Skyinfra-Api": str(api), "X-Skyinfra-Version": "9.9.9"}
        body = {"a_field_of_tomorrow": 1, "all_users": True}
        answer = await client.http.post("/v1/requests/status", json=body, headers=headers)
        assert answer.status_code == status
        assert answer.headers["X-Skyinfra-Api"] == str(NOW)
        if status == 400:
            assert answer.json()["type"] == "APIVersionMismatchError"
            assert "upgrade the client" in answer.json()["message"]
            assert "\n" not in answer.json()["message"]

    on_server(scenario)


def _problem(sent, described):
    """What is wrong, for today's server, with a request that a previous client sent; None = nothing."""
    path, _, query = sent["path"].partition("?")
    if versions.client_too_old(sent["headers"].get("X-Skyinfra-Api")):
        return f"its version {sent['headers']} is refused"
    templates = [one for one in described["paths"] if re.fullmatch(re.sub(r"{\w+}", "[^/]+", one), path)]
    operations = [described["paths"][one].get(sent["method"].lower()) for one in templates]
    operation = next(filter(None, operations), None)
    if operation is None:
        return f"no route for {sent['method']} {path}"
    known = {one["name"] for one in operation.get("parameters", ())}
    if unknown := set(re.findall(r"(\w+)=", query)) - known:
        return f"{path}: parameters {unknown} are not known"
    model = VERB_BODIES.get(path.removeprefix("/v1/requests/")) if sent["method"] == "POST" else None
    if model is not None:
        model.model_validate(sent["body"])  # raises what is wrong with it
        # a field that is not known is passed over in silence, because it may be one of tomorrow: here it is not
        if unknown := set(sent["body"]) - set(model.model_fields):
            return f"{path}: fields {unknown} are not known"
    return None


@pytest.mark.parametrize("previous", recorded(), ids=lambda previous: previous.folder.name)
def test_all_that_a_previous_client_sent_is_still_understood(previous):
    sent = [one for command in previous.requests["commands"] for one in command["sent"]]
    described = describe()
    assert [problem for one in sent if (problem := _problem(one, described))] == []
    verbs = {one["path"].rpartition("/")[2] for one in sent if one["method"] == "POST"}
    assert verbs >= {"launch", "exec", "stop", "start", "autostop", "cancel", "rollback", "down", "optimize", "tokens"}
    assert _problem({**sent[0], "path": "/v1/requests/nope/nope"}, described)  # it can tell


def test_fields_and_events_of_a_newer_agent_are_passed_over(on_server):
    row = {"job_id": 7, "name": "x", "user": "me", "state": "RUNNING", "submitted_at": 1.0, "colour": "blue"}
    assert load(JobRow, row).job_id == 7
    health = {"version": "9", "boot": 0, "generation": 0, "state": "ready", "uptime_s": 1, "mood": "good"}
    assert load(Health, health).state == "ready"

    async def scenario(client):
        await client.launch()
        (node,) = client.world.nodes.values()
        node.api = 2
        node.note("an event of tomorrow", {"x": 1})
        assert isinstance(node.events[-1], Event)
        assert (await client.do("exec", cluster_name="c", task={"run": "true"}))["status"] == "SUCCEEDED"
        assert (await client.launch())["status"] == "SUCCEEDED"
        assert len(client.world.operations) == 1  # nothing had to be replaced

    on_server(scenario)


def test_an_agent_that_is_too_old_is_replaced_by_the_next_launch(on_server):
    async def scenario(client):
        await client.launch()
        (node,) = client.world.nodes.values()
        node.api, before = 0, node.generation
        request_id = await client.submit("launch", task={"run": "true"}, cluster_name="c")
        await client.until(lambda: node.generation > before)
        node.api = 1  # what was installed
        assert (await client.result(request_id))["status"] == "SUCCEEDED"

    on_server(scenario)


@pytest.mark.parametrize("jump_s", [3600.0, -3600.0])
def test_a_jump_of_the_clock_moves_no_deadline_of_an_operation(monkeypatch, jump_s):
    now = time.time()
    ends = engine_call.ends_at(now + 100)
    monkeypatch.setattr(time, "time", lambda: now + jump_s)
    assert ends is not None
    assert 90 < ends - time.monotonic() <= 100
    assert engine_call.ends_at(None) is None


@pytest.mark.parametrize("jump_s", [3600.0, -3600.0])
def test_a_jump_of_the_clock_neither_ends_a_wait_nor_prolongs_it(on_server, monkeypatch, jump_s):
    """While an exec waits for an agent that is away, the time of day is corrected by an hour."""

    async def scenario(client):
        await client.launch()
        (node,) = client.world.nodes.values()
        real, shift_s = time.time, 0.0
        monkeypatch.setattr(client.services.engine, "_clock", lambda: real() + shift_s)

        async def parked_until():
            row = await client.services.db.read(lambda db: requests.get(db, request_id))
            return row.parked_until

        node.dead = True
        request_id = await client.submit("exec", cluster_name="c", task={"run": "true"})
        await client.until(parked_until)
        shift_s = jump_s
        before = await parked_until()

        async def parked_again():
            until = await parked_until()
            return until is not None and abs(until - before - jump_s) < 60

        await client.until(parked_again)  # it neither gave up nor forgot to look again
        node.dead = False
        assert (await client.result(request_id))["status"] == "SUCCEEDED"

    on_server(scenario)
