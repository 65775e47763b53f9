"""A cluster stopped, started, found stopped, ended when idle: on fakes, through the real server."""

import asyncio
import dataclasses

import pytest

from skyinfra.runtime.protocol import JobRow


def kinds(client):
    return [(o.kind, o.spec.power, o.spec.boot) for o in client.world.operations]


async def row(client):
    (found,) = await client.services.fleet.clusters.all()
    return found


def test_stop_is_a_config_change_and_start_raises_the_boot(on_server):
    async def scenario(client):
        await client.launch()
        (node,) = client.world.nodes.values()

        async def mirrored():
            return (await row(client)).events_seq >= 1

        await client.until(mirrored)
        outcome = await client.do("stop", cluster_name="c")
        assert outcome == {"status": "SUCCEEDED", "result": None}
        assert await client.state() == "STOPPED"
        assert node.draining
        job = (await client.read("queue", cluster_name="c"))["result"][0]
        assert (job["status"], job["reason"]) == ("FAILED_DRIVER", "the node was stopped while the job ran")
        assert (await client.http.get("/v1/clusters/c/jobs/1/log")).json()["type"] == "ClusterNotUpError"
        failed = await client.do("exec", task={"run": "x"}, cluster_name="c")
        assert failed["error"]["type"] == "ClusterNotUpError"
        assert failed["error"]["hint"] == "`skyinfra start c` starts it"
        outcome = await client.do("start", cluster_name="c")
        assert outcome["result"]["cluster_name"] == "c"
        assert await client.state() == "UP"
        assert kinds(client) == [("up", "running", 0), ("up", "stopped", 0), ("up", "running", 1)]

    on_server(scenario)


def test_a_stopped_cluster_is_started_by_launch_and_stopping_or_starting_twice_does_nothing(on_server):
    async def scenario(client):
        await client.launch()
        for _ in range(2):
            assert (await client.do("stop", cluster_name="c"))["status"] == "SUCCEEDED"
        assert (await client.launch())["status"] == "SUCCEEDED"
        assert (await client.do("start", cluster_name="c"))["status"] == "SUCCEEDED"
        assert [power for _, power, _ in kinds(client)] == ["running", "stopped", "running"]
        assert (await client.do("start", cluster_name="c", force=True))["status"] == "SUCCEEDED"
        slot = client.world.operations[-1].spec.slots[0]
        assert (slot.agent_generation, client.world.operations[-1].spec.boot) == (1, 1)

    on_server(scenario)


@pytest.mark.parametrize("verb", ["stop", "start", "autostop"])
def test_an_unknown_cluster_does_not_exist(on_server, verb):
    async def scenario(client):
        body = {"idle_minutes": 5} if verb == "autostop" else {}
        outcome = await client.do(verb, cluster_name="nope", **body)
        assert outcome["error"]["type"] == "ClusterDoesNotExist"

    on_server(scenario)


def test_a_spot_cluster_cannot_be_stopped_by_anybody(on_server):
    async def scenario(client):
        await client.launch(task={"resources": {"use_spot": True}})
        stop = await client.do("stop", cluster_name="c")
        idle = await client.do("autostop", cluster_name="c", idle_minutes=5)
        assert [o["error"]["type"] for o in (stop, idle)] == ["NotSupportedError"] * 2
        assert (await client.do("autostop", cluster_name="c", idle_minutes=5, down=True))["status"] == "SUCCEEDED"
        operations = len(client.world.operations)
        launch = await client.launch("d", task={"resources": {"use_spot": True, "autostop": 5}})
        assert launch["error"]["type"] == "NotSupportedError"
        assert len(client.world.operations) == operations, "said before anything was made"

    on_server(scenario)


def test_stop_cancels_the_launch_in_its_lane_and_the_cluster_ends_stopped(on_server):
    async def scenario(client):
        await client.launch()
        await client.do("stop", cluster_name="c")
        client.world.gate = asyncio.Event()
        launch = await client.submit("launch", task={"run": "x"}, cluster_name="c")
        await client.until(lambda: len(client.world.operations) == 3)
        stop = await client.submit("stop", cluster_name="c")
        assert (await client.result(launch))["status"] == "CANCELLED"
        client.world.gate.set()
        assert (await client.result(stop))["status"] == "SUCCEEDED"
        assert await client.state() == "STOPPED"

    on_server(scenario)


def test_a_stop_that_fails_leaves_a_cluster_in_doubt_and_purge_calls_it_stopped(on_server):
    async def scenario(client):
        await client.launch()
        client.world.refuse = [("user", "no")] * 2
        assert (await client.do("stop", cluster_name="c"))["status"] == "FAILED"
        found = (await client.read("status"))["result"][0]
        assert (found["status"], found["init_status_reason"]) == ("INIT", "its stop failed: no")
        assert (await client.do("stop", cluster_name="c", purge=True))["status"] == "SUCCEEDED"
        assert await client.state() == "STOPPED"

    on_server(scenario)


def test_a_cancelled_stop_that_changed_nothing_leaves_the_cluster_as_it_was(on_server):
    async def scenario(client):
        await client.launch()
        (node,) = client.world.nodes.values()
        client.world.gate = asyncio.Event()
        stop = await client.submit("stop", cluster_name="c")
        await client.until(lambda: len(client.world.operations) == 2)
        await client.http.delete(f"/v1/requests/{stop}")
        assert (await client.result(stop))["status"] == "CANCELLED"
        assert await client.state() == "INIT", "its operation had begun"
        client.world.gate.set()
        assert (await client.do("start", cluster_name="c"))["status"] == "SUCCEEDED"
        assert not node.draining

    on_server(scenario)


def test_a_start_without_room_leaves_it_stopped_or_tries_until_there_is(on_server):
    async def scenario(client):
        await client.launch()
        (node,) = client.world.nodes.values()
        await client.do("stop", cluster_name="c")
        client.world.refuse = [("capacity", "no GPU is free")]
        outcome = await client.do("start", cluster_name="c")
        assert outcome["error"]["type"] == "ResourcesUnavailableError"
        assert await client.state() == "STOPPED"
        assert node.off
        client.world.refuse = [("capacity", "no GPU is free")] * 2
        start = await client.submit("start", cluster_name="c", retry_until_up=True)
        seen = set()

        async def up():
            payload = (await client.http.get(f"/v1/requests/{start}")).json()
            seen.add((payload["status"], "retry-until-up" in payload["status_msg"]))
            return payload["status"] == "SUCCEEDED"

        await client.until(up)
        assert ("WAITING", True) in seen
        assert await client.state() == "UP"

    on_server(scenario, retry_s=0.1)


def test_found_stopped_from_outside_the_declaration_says_so_before_any_up(on_server):
    async def scenario(client):
        await client.launch()
        (node,) = client.world.nodes.values()
        node.stop()

        async def stopped():
            return await client.state() == "STOPPED"

        await client.until(stopped)
        assert (await row(client)).spec["power"] == "stopped"
        assert kinds(client)[1:] == [("up", "stopped", 0)]
        await client.do("start", cluster_name="c")
        assert kinds(client)[2:] == [("up", "running", 1)]

    on_server(scenario)


def test_refresh_sees_it_at_once(on_server):
    async def scenario(client):
        await client.launch()
        (node,) = client.world.nodes.values()
        node.off = True  # its agent still answers: nobody noticed yet
        real = client.services.fleet.power.seen_off
        assert await real(await row(client))
        node.dead = True
        found = (await client.read("status", refresh="FORCE"))["result"][0]
        assert found["status"] == "STOPPED"

    on_server(scenario)


def test_an_idle_cluster_stops_is_shown_autostopping_and_refuses_exec_meanwhile(on_server):
    async def scenario(client):
        await client.launch(idle_minutes_to_autostop=1)
        (node,) = client.world.nodes.values()
        assert node.config.autostop == {
            "idle_minutes": 1, "down": False, "wait_for": "jobs_and_ssh", "hook": None, "hook_timeout": None,
            "setting": 1,
        }  # fmt: skip
        assert node.config.minute_s == 0.05
        client.world.gate = asyncio.Event()  # before the clock may run out, which is 50 ms after the job's end
        await client.do("cancel", cluster_name="c", all=True)

        async def autostopping():
            node.note("idle", {})
            return await client.state() == "AUTOSTOPPING"

        await client.until(autostopping)
        failed = await client.do("exec", task={"run": "x"}, cluster_name="c")
        assert failed["error"]["type"] == "ClusterNotUpError"
        client.world.gate.set()

        async def stopped():
            # The mirror may not have had the job yet when the time was over: then the next word of the node asks again.
            node.note("idle", {})
            return await client.state() == "STOPPED"

        await client.until(stopped)
        await client.do("start", cluster_name="c")
        assert node.config.autostop["setting"] == 2, "as it was, and its clock begins anew"
        assert (await client.read("status"))["result"][0]["autostop"] == 1

    on_server(scenario, minute_s=0.05)


def test_the_nodes_word_is_enough_but_not_of_another_setting_or_with_work_left(on_server):
    async def scenario(client):
        await client.launch()
        await client.do("autostop", cluster_name="c", idle_minutes=5)
        (node,) = client.world.nodes.values()
        node.note("autostop", {"event": "stop", "setting": 1, "idle_s": 300})  # a job runs

        async def expired():
            answer = (await client.http.get("/v1/requests?all=1")).json()["requests"]
            return [r for r in answer if r["name"] == "sky.expire" and r["status"] == "SUCCEEDED"]

        await client.until(expired)
        assert await client.state() == "UP"
        assert not node.draining
        await client.do("cancel", cluster_name="c", all=True)
        node.note("autostop", {"event": "stop", "setting": 7, "idle_s": 300})
        node.note("autostop", {"event": "stop", "setting": 1, "idle_s": 300})

        async def stopped():
            return await client.state() == "STOPPED"

        await client.until(stopped)

    on_server(scenario)


def test_hooks_run_before_the_end_autostops_own_only_by_itself(on_server):
    hooks = {"config": {"hooks": [{"run": "x", "events": ["stop", "down"]}]}}

    async def scenario(client):
        await client.launch(task=hooks)
        (node,) = client.world.nodes.values()
        assert node.config.hooks == [{"run": "x", "events": ["stop", "down"], "timeout": 3600}]
        await client.do("stop", cluster_name="c")
        await client.do("start", cluster_name="c")
        await client.do("down", cluster_name="c")
        assert node.hooks == [("stop", False), ("down", False)]
        await client.launch()
        (node,) = client.world.nodes.values()
        await client.do("cancel", cluster_name="c", all=True)
        await client.do("autostop", cluster_name="c", idle_minutes=1, hook="own", wait_for="none", down=True)

        async def gone():
            node.note("idle", {})
            return await client.state() is None

        await client.until(gone)
        assert node.hooks == [("down", True)]

    on_server(scenario, minute_s=0.05)


def test_a_launch_on_the_idle_cluster_is_not_cancelled_by_its_expiry(on_server):
    async def scenario(client):
        await client.launch(idle_minutes_to_autostop=1)
        (node,) = client.world.nodes.values()
        await client.do("cancel", cluster_name="c", all=True)
        node.boot = 9  # its agent is not the one wanted: the launch needs an operation
        client.world.gate = asyncio.Event()
        launch = await client.submit("launch", task={"run": "more"}, cluster_name="c")
        await client.until(lambda: len(client.world.operations) == 2)
        await asyncio.sleep(0)
        node.note("autostop", {"event": "stop", "setting": 1, "idle_s": 300})
        client.world.gate.set()
        assert (await client.result(launch))["status"] == "SUCCEEDED"
        assert await client.state() == "UP"

    on_server(scenario, minute_s=600)


def test_autostop_called_off_and_0_minutes_and_not_up(on_server):
    async def scenario(client):
        await client.launch()
        request = await client.submit("autostop", cluster_name="c", idle_minutes=0)
        await client.result(request)
        lines = [line.get("text") for line in await client.log_lines(request)]
        assert "idle minutes of 0 mean 1" in lines
        assert (await client.read("status"))["result"][0]["autostop"] == 1
        await client.do("autostop", cluster_name="c", idle_minutes=-1)
        assert (await client.read("status"))["result"][0]["autostop"] == -1
        await client.do("stop", cluster_name="c")
        assert (await client.do("autostop", cluster_name="c", idle_minutes=5))["error"]["type"] == "ClusterNotUpError"

    on_server(scenario, minute_s=600)


def test_resize_changes_an_idle_node_in_place_within_the_host(on_server):
    async def scenario(client):
        await client.launch(task={"resources": {"cpus": 2, "memory": 4}})
        (node,) = client.world.nodes.values()
        grow = {"resources": {"cpus": 4}}
        busy = await client.launch(task=grow, resize=True)
        assert busy["error"]["type"] == "NotSupportedError"
        assert "job 1" in busy["error"]["message"]
        assert not node.draining
        await client.do("cancel", cluster_name="c", all=True)
        assert (await client.launch(task=grow, resize=True))["status"] == "SUCCEEDED"
        slot = client.world.operations[-1].spec.slots[0]
        assert (slot.cpus, slot.memory_gb, node.config.cpus, node.draining) == (4, 4, 4, False)
        await client.do("cancel", cluster_name="c", all=True)
        assert (await client.launch(task={"resources": {"cpus": 1}}, resize=True))["status"] == "SUCCEEDED"
        await client.do("cancel", cluster_name="c", all=True)
        for resources, kind in (
            ({"cpus": 64}, "ResourcesUnavailableError"),
            ({"accelerators": "T4"}, "ResourcesMismatchError"),
        ):
            outcome = await client.launch(task={"resources": resources}, resize=True)
            assert outcome["error"]["type"] == kind
        assert await client.state() == "UP"
        client.world.refuse = [("consent", "would replace it")]
        assert (await client.launch(task=grow, resize=True))["status"] == "FAILED"
        assert not node.draining, "it takes jobs as before"

    on_server(scenario)


def test_fast_skips_setup_only_where_the_cluster_was_up_and_nothing_changed(on_server):
    async def scenario(client):
        task = {"setup": "s"}
        await client.launch(task=task)
        (node,) = client.world.nodes.values()
        await client.launch(task=task, fast=True)
        await client.launch(task=task, no_setup=True)
        await client.do("stop", cluster_name="c")
        await client.launch(task=task, fast=True)
        assert [job.setup for job in node.submitted] == ["s", None, None, "s"]

    on_server(scenario)


def test_a_stop_interrupted_by_the_servers_end_goes_on_with_the_next_one(on_servers):
    async def scenario(start):
        async with start() as client:
            await client.launch()
            client.world.gate = asyncio.Event()
            request = await client.submit("stop", cluster_name="c")
            await client.until(lambda: len(client.world.operations) == 2)
        client.world.gate = None
        async with start() as client:
            assert (await client.result(request))["status"] == "SUCCEEDED"
            assert await client.state() == "STOPPED"

    on_servers(scenario)


def test_a_node_that_stopped_itself_while_nobody_listened_is_still_removed_if_that_was_meant(on_servers):
    async def scenario(start):
        async with start() as client:
            await client.launch(idle_minutes_to_autostop=5, down=True)
            (node,) = client.world.nodes.values()
            node.jobs = [dataclasses.replace(job, state="FAILED_DRIVER") for job in node.jobs]
            assert isinstance(node.jobs[0], JobRow)
        node.stop()
        node.stopped_by = "autostop"
        async with start() as client:

            async def gone():
                return await client.state() is None

            await client.until(gone)
        assert client.world.nodes == {}

    on_servers(scenario)


def test_an_expired_cluster_that_cannot_be_removed_is_in_doubt_and_says_what_is_left(on_server):
    async def scenario(client):
        await client.launch(down=True)
        (node,) = client.world.nodes.values()
        await client.do("cancel", cluster_name="c", all=True)
        client.world.left = ["c-0-9"]

        async def in_doubt():
            node.note("idle", {})
            return await client.state() == "INIT"

        await client.until(in_doubt)
        assert (await client.read("status"))["result"][0]["init_status_reason"] == "down failed"

    on_server(scenario, minute_s=0.05)


def test_a_launch_that_waited_for_room_and_is_cancelled_leaves_no_row(on_server):
    async def scenario(client):
        client.world.refuse = [("capacity", "full")]
        launch = await client.submit("launch", task={"run": "x"}, cluster_name="c", retry_until_up=True)

        async def waits():
            return (await client.http.get(f"/v1/requests/{launch}")).json()["status"] == "WAITING"

        await client.until(waits)
        assert await client.state() == "INIT"
        await client.http.delete(f"/v1/requests/{launch}")
        assert (await client.result(launch))["status"] == "CANCELLED"
        assert await client.state() is None

    on_server(scenario, retry_s=600)


def test_expiry_that_is_called_off_by_hand_begins_its_time_anew(on_server):
    async def scenario(client):
        await client.launch(idle_minutes_to_autostop=1)
        (node,) = client.world.nodes.values()
        await client.do("cancel", cluster_name="c", all=True)
        client.world.hold_hooks = asyncio.Event()
        await client.services.fleet.clusters.change(
            (await row(client)).id, spec={**(await row(client)).spec, "hooks": [{"run": "x", "events": ["stop"]}]}
        )
        node.note("autostop", {"event": "stop", "setting": 1, "idle_s": 300})

        async def autostopping():
            return await client.state() == "AUTOSTOPPING"

        await client.until(autostopping)
        listing = (await client.http.get("/v1/requests?all=1")).json()["requests"]
        (expire,) = [r["request_id"] for r in listing if r["name"] == "sky.expire"]
        await client.http.delete(f"/v1/requests/{expire}")
        assert (await client.result(expire))["status"] == "CANCELLED"
        assert await client.state() == "UP"
        assert (await row(client)).spec["autostop"]["setting"] == 2
        assert not node.draining

    on_server(scenario, minute_s=600)
