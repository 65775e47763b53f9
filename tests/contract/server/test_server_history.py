"""Plans, history, diff and rollback over HTTP, on fake stacks."""

from __future__ import annotations

import asyncio


async def history(client, name="c", **body):
    return (await client.read("history", cluster_name=name, **body))["result"]


def test_a_dryrun_plans_and_leaves_nothing(on_server):
    async def scenario(client):
        done = await client.launch(dryrun=True)
        plan = done["result"]["plan"]
        assert (plan["exists"], plan["changes"]["create"], plan["refused"]) == (False, 1, [])
        assert (plan["hourly_before"], plan["hourly_after"]) == (0.0, 0.0)
        assert client.world.nodes == {}
        assert await client.state() is None
        [preview] = client.world.operations
        assert client.world.forgotten == [preview.id]

    on_server(scenario)


def test_a_cluster_planned_but_never_made_can_be_called_off_without_a_trace(on_server):
    """A preview is an operation on the stack's name; it must not make anybody believe that something exists."""

    async def scenario(client):
        await client.launch(dryrun=True)
        client.world.gate = asyncio.Event()
        request = await client.submit("launch", task={"run": "x"}, cluster_name="c")
        await client.until(lambda: len(client.world.operations) == 2)
        await client.http.delete(f"/v1/requests/{request}")
        await client.result(request)
        client.world.gate.set()
        assert (await client.do("down", cluster_name="c"))["status"] == "SUCCEEDED"
        assert await client.state() is None

    on_server(scenario)


def test_history_has_each_update_with_its_request_and_outlives_down(on_server):
    async def scenario(client):
        launched = await client.submit(
            "launch", task={"run": "x"}, cluster_name="c", entrypoint="skyinfra launch --env A=secretvalue"
        )
        await client.result(launched)
        await client.launch()  # nothing to change: no update
        await client.do("down", cluster_name="c")
        await client.launch()
        found = await history(client)
        assert [(u["number"], u["kind"], u["state"]) for u in found] == [
            (3, "up", "succeeded"),
            (2, "destroy", "succeeded"),
            (1, "up", "succeeded"),
        ]
        first = found[-1]
        assert (first["request_id"], first["verb"], first["user_name"]) == (launched, "launch", "me")
        assert first["changes"]["create"] == 2
        assert "secretvalue" not in str(found)
        assert [u["number"] for u in await history(client, limit=1)] == [3]

    on_server(scenario)


def test_a_failed_update_is_history_too(on_server):
    async def scenario(client):
        client.world.refuse = [("user", "a bad parameter")]
        assert (await client.launch())["status"] == "FAILED"
        found = await history(client)
        assert [(u["kind"], u["state"], u["message"]) for u in found] == [
            ("destroy", "succeeded", ""),
            ("up", "failed", "a bad parameter"),
        ]

    on_server(scenario)


def test_history_of_what_never_was_is_an_error(on_server):
    async def scenario(client):
        answer = await client.read("history", cluster_name="nope")
        assert answer["error"]["type"] == "ClusterDoesNotExist"
        assert (await client.do("diff", cluster_name="nope", before=1))["error"]["type"] == "ClusterDoesNotExist"
        assert (await client.do("rollback", cluster_name="nope", to=1))["error"]["type"] == "ClusterDoesNotExist"

    on_server(scenario)


async def two_lives(client):
    """Update 1: one CPU; 2: gone; 3: two CPUs."""
    await client.launch(task={"resources": {"cpus": 1}})
    await client.do("down", cluster_name="c")
    await client.launch(task={"resources": {"cpus": 2}})


def test_diff_compares_two_updates_and_an_update_with_now(on_server):
    async def scenario(client):
        await two_lives(client)
        for asked in ({"before": 1, "after": 3}, {"before": 1}):
            found = (await client.do("diff", cluster_name="c", **asked))["result"]
            assert found["spec"] == [{"property": "slots[0].cpus", "before": 1.0, "after": 2.0}]
            [line] = found["resources"]
            assert (line["op"], line["causes"]) == ("update", [{"property": "cpus", "before": 1.0, "after": 2.0}])
        gone = (await client.do("diff", cluster_name="c", before=1, after=2))["result"]
        assert [line["op"] for line in gone["resources"]] == ["delete"]
        planned = (await client.do("diff", cluster_name="c"))["result"]
        assert (planned["after"], planned["spec"], planned["resources"]) == ("planned", [], [])
        error = (await client.do("diff", cluster_name="c", before=9))["error"]
        assert "no update 9" in error["message"]

    on_server(scenario)


def test_a_rollback_shows_its_plan_then_makes_the_cluster_what_it_was(on_server):
    async def scenario(client):
        await two_lives(client)
        planned = (await client.do("rollback", cluster_name="c", to=1, dryrun=True))["result"]
        assert [line["op"] for line in planned["plan"]["resources"]] == ["update"]
        assert len(await history(client)) == planned["update"] == 3
        done = await client.do("rollback", cluster_name="c", to=1, expect=3)
        assert (done["status"], done["result"]["update"]) == ("SUCCEEDED", 4)
        assert await client.state() == "UP"
        assert client.world.cpus_of.popitem()[1] == 1.0
        assert (await history(client))[0]["verb"] == "rollback"
        assert (await client.do("diff", cluster_name="c", before=1))["result"]["spec"] == []

    on_server(scenario)


def test_a_rollback_is_refused_when_the_cluster_moved_on_since_its_plan(on_server):
    async def scenario(client):
        await two_lives(client)
        error = (await client.do("rollback", cluster_name="c", to=1, expect=2))["error"]
        assert "another update since" in error["message"]
        assert client.world.cpus_of.popitem()[1] == 2.0

    on_server(scenario)


def test_there_is_no_rollback_to_an_update_that_failed_or_removed_the_cluster(on_server):
    async def scenario(client):
        await two_lives(client)
        error = (await client.do("rollback", cluster_name="c", to=2))["error"]
        assert "removed the cluster" in error["message"]

    on_server(scenario)


def test_without_consent_a_replacement_is_refused_and_the_cluster_is_what_it_was(on_server):
    async def scenario(client):
        await two_lives(client)
        client.world.how_cpus_change = "replace"
        planned = (await client.do("rollback", cluster_name="c", to=1, dryrun=True))["result"]["plan"]
        assert len(planned["refused"]) == 1
        refused = await client.do("rollback", cluster_name="c", to=1)
        assert (refused["error"]["type"], refused["error"]["hint"]) == (
            "ClusterSetUpError",
            "`--replace-nodes` allows it",
        )
        assert await client.state() == "UP"
        assert (await client.do("diff", cluster_name="c", before=3))["result"]["spec"] == []
        done = await client.do("rollback", cluster_name="c", to=1, replace_nodes=True)
        assert done["status"] == "SUCCEEDED"
        assert client.world.cpus_of.popitem()[1] == 1.0

    on_server(scenario)


def test_a_failed_rollback_of_a_cluster_leaves_it_unhealthy_and_another_one_mends_it(on_server):
    async def scenario(client):
        await two_lives(client)
        client.world.refuse = [("user", "no")]
        assert (await client.do("rollback", cluster_name="c", to=1))["status"] == "FAILED"
        assert await client.state() == "INIT"
        assert (await client.do("rollback", cluster_name="c", to=3))["status"] == "SUCCEEDED"
        assert await client.state() == "UP"

    on_server(scenario)


def test_a_rollback_goes_on_after_the_servers_death(on_servers):
    async def scenario(start):
        async with start() as client:
            await two_lives(client)
            client.world.gate = asyncio.Event()
            request = await client.submit("rollback", cluster_name="c", to=1)
            await client.until(lambda: client.world.operations[-1].spec.slots[0].cpus == 1.0)
        async with start() as client:
            client.world.gate.set()
            assert (await client.result(request))["status"] == "SUCCEEDED"
            states = [u["state"] for u in await history(client)]
            assert states == ["succeeded", "cancelled", "succeeded", "succeeded", "succeeded"]

    on_servers(scenario)


def test_a_given_up_node_gets_a_new_machine_only_when_nodes_may_be_replaced(on_server):
    async def scenario(client):
        await client.launch()
        row = await client.services.fleet.clusters.find("default", "c")
        await client.services.fleet.clusters.change(row.id, status="INIT", cordoned="agent")
        await client.launch(dryrun=True)
        assert client.world.operations[-1].spec.slots[0].incarnation == 0
        await client.launch(replace_nodes=True)
        assert client.world.operations[-1].spec.slots[0].incarnation == 1
        assert client.world.operations[-1].consent == ("*",)
        assert await client.state() == "UP"

    on_server(scenario)
