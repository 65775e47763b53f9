"""What happens to clusters: launched, reused, refused, moved to another place, brought back, taken down."""

import asyncio
import json
import threading

import pytest

from skyinfra.store.tables import metadata
from skyinfra.testing import trees


def test_a_launch_makes_a_cluster_and_submits_the_job_once(on_server):
    async def scenario(client):
        outcome = await client.launch(task={"envs": {"A": "1"}, "secrets": {"S": "x"}, "setup": "true"})
        assert outcome["status"] == "SUCCEEDED", outcome
        assert outcome["result"]["job_id"] == 1
        handle = outcome["result"]["handle"]
        assert (handle["cluster_name"], handle["cloud"], handle["launched_nodes"]) == ("c", "local", 1)
        assert handle["launched_resources"] == {"infra": "local", "cpus": "4", "memory": "16", "disk_size": 256}
        (node,) = client.world.nodes.values()
        (job,) = node.submitted
        assert (job.envs, job.secrets, job.setup, job.run) == ({"A": "1"}, {"S": "x"}, "true", "echo hi")
        assert node.config.cluster["cluster_name"] == "c"
        assert await client.state() == "UP"

    on_server(scenario)


def test_a_cluster_without_a_name_gets_one(on_server):
    async def scenario(client):
        outcome = await client.launch(name=None)
        name = outcome["result"]["handle"]["cluster_name"]
        assert name.startswith("sky-")
        assert name.endswith("-me")

    on_server(scenario)


def test_a_second_launch_waits_and_its_job_runs_on_the_same_cluster(on_server):
    async def scenario(client):
        client.world.gate = asyncio.Event()
        first = await client.submit("launch", task={"run": "a"}, cluster_name="c")
        await client.until(lambda: client.world.operations)
        second = await client.submit("launch", task={"run": "b"}, cluster_name="c")

        async def waits():
            return (await client.http.get(f"/v1/requests/{second}")).json()["status"] == "WAITING"

        await client.until(waits)
        client.world.gate.set()
        results = [await client.result(first), await client.result(second)]
        assert [r["result"]["job_id"] for r in results] == [1, 2]
        assert [o.kind for o in client.world.operations] == ["up"]

    on_server(scenario)


def test_names_that_look_alike_are_three_clusters(on_server):
    async def scenario(client):
        for name in ("a.b", "a_b", "A-B"):
            assert (await client.launch(name))["status"] == "SUCCEEDED"
        assert len(client.world.nodes) == 3

    on_server(scenario)


@pytest.mark.parametrize(
    ("name", "task", "kind", "says"),
    [
        ("1bad", {}, "InvalidClusterNameError", "1bad"),
        (
            "c",
            {"resources": {"cpus": "5+"}},
            "ResourcesUnavailableError",
            "no machine with 5+ vCPUs; the nearest has 4",
        ),
        ("c", {"resources": {"memory": "99"}}, "ResourcesUnavailableError", "the nearest has 16"),
        ("c", {"resources": {"accelerators": "H100:8"}}, "ResourcesUnavailableError", "local: no H100"),
        (
            "c",
            {"resources": {"infra": "aws/us-east-1"}},
            "NoCloudAccessError",
            "aws, which is not enabled; enabled: local",
        ),
        ("c", {"resources": {"image_id": "docker:x"}}, "NotSupportedError", "docker:x"),
        ("c", {"file_mounts": {"/data": "s3://bucket"}}, "NotSupportedError", "/data"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name_and_leaves_nothing(on_server, name, task, kind, says):
    async def scenario(client):
        outcome = await client.launch(name, task=task)
        assert outcome["status"] == "FAILED"
        assert outcome["error"]["type"] == kind
        assert says in outcome["error"]["message"]
        assert client.world.operations == []
        assert await client.state(name) is None

    on_server(scenario)


def test_an_existing_cluster_that_is_too_small_is_refused(on_server):
    async def scenario(client):
        await client.launch(task={"resources": {"cpus": 2}})
        outcome = await client.launch(task={"resources": {"cpus": 3}})
        assert outcome["error"]["type"] == "ResourcesMismatchError"
        outcome = await client.do("exec", task={"run": "x", "resources": {"memory": 999}}, cluster_name="c")
        assert outcome["error"]["type"] == "ResourcesMismatchError"

    on_server(scenario)


def test_a_dry_run_makes_nothing(on_server):
    async def scenario(client):
        outcome = await client.launch(dryrun=True)
        assert (outcome["result"]["job_id"], outcome["result"]["handle"]) == (None, None)
        assert [operation.kind for operation in client.world.operations] == ["preview"]
        assert client.world.nodes == {}
        assert await client.state() is None

    on_server(scenario)


def test_a_task_without_commands_makes_no_job(on_server):
    async def scenario(client):
        outcome = await client.do("launch", task={"name": "x"}, cluster_name="c")
        assert outcome["result"]["job_id"] is None
        outcome = await client.do("launch", task={"setup": "true"}, cluster_name="c")
        assert outcome["result"]["job_id"] == 1

    on_server(scenario)


def test_without_capacity_the_next_candidate_is_tried_and_the_first_is_destroyed(on_server):
    async def scenario(client):
        client.world.gpus = {"A100": 1, "T4": 1}
        client.world.refuse = [("capacity", "no A100 is free")]
        task = {"resources": {"any_of": [{"accelerators": "A100"}, {"accelerators": "T4"}]}}
        outcome = await client.launch(task=task)
        assert outcome["status"] == "SUCCEEDED", outcome
        assert outcome["result"]["handle"]["launched_resources"]["accelerators"] == {"T4": 1}
        assert [o.kind for o in client.world.operations] == ["up", "destroy", "up"]
        outcome = await client.launch("d", task=task)
        first = client.world.operations[-1]
        assert first.spec.slots[0].gpus == ("T4", 1), "the shortage is remembered"

    on_server(scenario)


def test_when_no_place_has_room_the_history_says_why_and_nothing_is_left(on_server):
    async def scenario(client):
        client.world.refuse = [("capacity", "full")]
        outcome = await client.launch()
        error = outcome["error"]
        assert error["type"] == "ResourcesUnavailableError"
        history = error["attributes"]["failover_history"]
        assert [h["__error__"]["message"] for h in history] == ["local: full"]
        assert await client.state() is None
        assert client.world.nodes == {}

    on_server(scenario)


def test_each_place_is_tried_once_and_the_whole_history_is_told(on_server):
    async def scenario(client):
        client.world.gpus = {"A100": 1, "T4": 1}
        client.world.refuse = [("capacity", "no A100"), ("quota", "no T4 for you")]
        task = {"resources": {"any_of": [{"accelerators": "A100"}, {"accelerators": "T4"}]}}
        request = await client.submit("launch", task=task, cluster_name="c")
        error = (await client.result(request))["error"]
        assert error["message"] == "no place had room for cluster 'c' (2 were tried): no T4 for you"
        history = [one["__error__"]["message"] for one in error["attributes"]["failover_history"]]
        assert history == ["local: no A100", "local: no T4 for you"]
        assert [o.kind for o in client.world.operations] == ["up", "destroy", "up", "destroy"]
        text = [line.get("text", "") for line in await client.log_lines(request)]
        assert "Trying local" in text
        table = text[text.index("No place had room for cluster 'c':") + 1 :]
        assert [line.split()[:2] for line in table[:3]] == [["WHERE", "WHAT"], ["local", "local"], ["local", "local"]]
        assert await client.state() is None

    on_server(scenario)


@pytest.mark.parametrize(
    ("kind", "public"),
    [("credentials", "InvalidCloudCredentials"), ("user", "ValueError"), ("ours", "ClusterSetUpError")],
)
def test_other_failures_stop_with_their_public_class_and_leave_nothing(on_server, kind, public):
    async def scenario(client):
        client.world.refuse = [(kind, "because")]
        outcome = await client.launch()
        assert outcome["error"]["type"] == public
        assert await client.state() is None

    on_server(scenario)


def test_an_engine_failure_is_tried_once_more(on_server):
    async def scenario(client):
        client.world.refuse = [("engine", "the stack is locked")]
        assert (await client.launch())["status"] == "SUCCEEDED"
        assert [o.kind for o in client.world.operations] == ["up", "up"]
        fences = [o.fence for o in client.world.operations]
        assert fences == [1, 2]

    on_server(scenario)


def test_down_during_up_cancels_the_launch_and_leaves_nothing(on_server):
    async def scenario(client):
        client.world.gate = asyncio.Event()
        launch = await client.submit("launch", task={"run": "a"}, cluster_name="c")
        await client.until(lambda: client.world.operations)
        down = await client.submit("down", cluster_name="c")
        outcome = await client.result(launch)
        assert (outcome["status"], outcome["error"]["type"]) == ("CANCELLED", "RequestCancelled")
        client.world.gate.set()
        assert (await client.result(down))["status"] == "SUCCEEDED"
        assert client.world.cancelled
        assert await client.state() is None
        payload = (await client.http.get(f"/v1/requests/{launch}")).json()
        assert [o["state"] for o in payload["operations"]] == ["cancelled"]

    on_server(scenario)


def test_down_of_a_launch_that_made_nothing_yet_is_a_success(on_server):
    async def scenario(client):
        asked, gate = threading.Event(), threading.Event()

        there = client.world.machines()

        def machines():
            asked.set()
            gate.wait(10)
            return there

        client.world.machines = machines  # the launch stands still in its plan: there is no row of the cluster yet
        launch = await client.submit("launch", task={"run": "a"}, cluster_name="c")
        await client.until(asked.is_set)
        down = await client.submit("down", cluster_name="c")
        assert (await client.result(launch))["status"] == "CANCELLED"
        assert (await client.result(down))["status"] == "SUCCEEDED"
        gate.set()
        assert client.world.operations == []
        again = await client.do("down", cluster_name="c")
        assert again["error"]["type"] == "ClusterDoesNotExist"

    on_server(scenario)


def test_down_names_what_is_left_and_keeps_the_cluster(on_server):
    async def scenario(client):
        await client.launch()
        client.world.left = ["c-0-0"]
        outcome = await client.do("down", cluster_name="c")
        assert outcome["status"] == "FAILED"
        assert "c-0-0" in outcome["error"]["message"]
        assert await client.state() == "UP"
        assert (await client.do("down", cluster_name="c", purge=True))["status"] == "SUCCEEDED"
        assert await client.state() is None

    on_server(scenario)


def test_exec_syncs_the_workdir_only_and_skips_setup(on_server):
    async def scenario(client):
        raw = trees.manifest(trees.file("a", b"content"), trees.file("b", b"more"))
        digest = trees.digest_of(raw)
        await client.http.put(f"/v1/blobs/{digest}", content=raw)
        await client.http.post("/v1/blobs", content=trees.pack([b"content", b"more"]))
        blob = {"digest": digest, "kind": "dir"}
        both = {"~/sky_workdir": blob, "/data": blob}
        await client.launch(blobs=both)
        (node,) = client.world.nodes.values()
        assert [t["dest"] for t in node.applied] == ["~/sky_workdir", "/data"]
        assert set(node.chunks.values()) == {b"content", b"more"}
        await client.do("exec", task={"run": "x", "setup": "never"}, cluster_name="c", blobs=both)
        assert [t["dest"] for t in node.applied[2:]] == ["~/sky_workdir"]
        assert node.submitted[-1].setup is None

    on_server(scenario)


def test_a_git_workdir_is_fetched_by_the_node_and_told_to_the_job(on_server):
    async def scenario(client):
        task = {
            "run": "x",
            "workdir": {"url": "https://host/r.git", "ref": "v1"},
            "envs": {"GIT_URL": "https://host/r.git", "GIT_BRANCH": "v1", "MINE": "1"},
            "secrets": {"GIT_TOKEN": "s3cr3t"},
        }
        await client.launch(task=task)
        (node,) = client.world.nodes.values()
        assert [(c.url, c.ref, c.token, c.dest) for c in node.checkouts] == [
            ("https://host/r.git", "v1", "s3cr3t", "~/sky_workdir")
        ] * 2
        git = {"GIT_URL": "https://host/r.git", "GIT_COMMIT_HASH": "c" * 40, "GIT_TAG": "v1"}
        assert node.submitted[0].envs == {"MINE": "1", **git}
        assert node.submitted[0].metadata == {"git_commit": "c" * 40}
        outcome = await client.do("exec", cluster_name="c", task={**task, "workdir": {"url": "u", "ref": "nope"}})
        assert outcome["error"]["type"] == "GitError"
        assert "no branch, tag or commit 'nope' in u" in outcome["error"]["message"]

    on_server(scenario)


def test_exec_wants_a_cluster_that_is_up(on_server):
    async def scenario(client):
        outcome = await client.do("exec", task={"run": "x"}, cluster_name="nope")
        assert outcome["error"]["type"] == "ClusterDoesNotExist"

    on_server(scenario)


def test_jobs_are_listed_looked_up_and_cancelled(on_server):
    async def scenario(client):
        await client.launch()
        await client.do("exec", task={"name": "two", "run": "x"}, cluster_name="c")
        queue = (await client.read("queue", cluster_name="c"))["result"]
        assert [(j["job_id"], j["job_name"], j["status"]) for j in queue] == [
            (2, "two", "RUNNING"),
            (1, "t", "RUNNING"),
        ]
        states = (await client.read("job_status", cluster_name="c"))["result"]
        assert states == [[2, "RUNNING"]]
        assert (await client.read("job_status", cluster_name="c", job_ids=[]))["result"] == []
        assert (await client.read("job_status", cluster_name="c", job_ids=[9]))["result"] == [[9, None]]
        await client.do("cancel", cluster_name="c")
        states = (await client.read("job_status", cluster_name="c", job_ids=[1, 2]))["result"]
        assert states == [[1, "RUNNING"], [2, "CANCELLED"]], "the newest running one"
        await client.do("cancel", cluster_name="c", all=True)
        queue = (await client.read("queue", cluster_name="c", skip_finished=True))["result"]
        assert queue == []
        both = await client.do("cancel", cluster_name="c", all=True, job_ids=[1])
        assert both["error"]["type"] == "NotSupportedError"

    on_server(scenario)


def test_log_bytes_pass_untouched_from_the_offset(on_server):
    async def scenario(client):
        await client.launch()
        answer = await client.http.get("/v1/clusters/c/jobs/latest/log")
        assert answer.content == b"\xff raw \r bytes of job 1\n"
        assert answer.headers["X-Job-Id"] == "1"
        assert answer.headers["X-Job-State"] == "RUNNING"
        rest = await client.http.get("/v1/clusters/c/jobs/1/log?offset=5")
        assert rest.content == answer.content[5:]
        assert rest.headers["X-Start-Offset"] == "5"
        assert (await client.http.get("/v1/clusters/c/jobs/1")).json()["cluster_name"] == "c"
        assert (await client.http.get("/v1/clusters/c/jobs/7/log")).status_code == 404
        assert (await client.http.get("/v1/clusters/c/jobs/7")).json()["type"] == "JobNotFound"
        assert (await client.http.get("/v1/clusters/x/jobs/1")).json()["type"] == "ClusterDoesNotExist"

    on_server(scenario)


def test_a_dead_agent_is_brought_back_without_any_call(on_server):
    async def scenario(client):
        await client.launch()
        (node,) = client.world.nodes.values()
        node.die()
        await client.until(lambda: node.generation == 1 and not node.dead)
        assert await client.state() == "UP"
        listing = (await client.http.get("/v1/requests?all=1")).json()["requests"]
        assert listing[0]["name"] == "sky.revive"

    on_server(scenario)


def test_an_agent_that_keeps_dying_is_given_up_and_the_node_cordoned(on_server):
    async def scenario(client):
        await client.launch()
        (node,) = client.world.nodes.values()
        for death in range(1, 4):
            node.die()
            await client.until(lambda wanted=death: node.generation == wanted and not node.dead)
        node.die()

        async def cordoned():
            return await client.state() == "INIT"

        await client.until(cordoned)
        record = (await client.read("status"))["result"][0]
        assert "CORDONED(agent)" in record["init_status_reason"]
        assert record["init_kind"] == "unhealthy"
        assert (await client.launch())["status"] == "SUCCEEDED", "a launch brings it up again"
        assert await client.state() == "UP"

    on_server(scenario)


def test_the_mirror_answers_while_the_agent_is_away(on_server):
    async def scenario(client):
        await client.launch()
        (node,) = client.world.nodes.values()

        async def mirrored():
            row = (await client.services.fleet.clusters.all())[0]
            return row.events_seq >= 1

        await client.until(mirrored)
        client.world.gate = asyncio.Event()  # nobody brings it back for now
        node.die()
        assert (await client.read("queue", cluster_name="c"))["result"][0]["job_name"] == "t"
        assert (await client.http.get("/v1/clusters/c/jobs/1/log")).status_code == 503
        client.world.gate.set()

    on_server(scenario)


def test_an_idle_cluster_goes_down_when_asked_to(on_server):
    async def scenario(client):
        await client.launch(down=True)
        (node,) = client.world.nodes.values()
        node.note("heartbeat", {})
        assert await client.state() == "UP", "a job runs"
        await client.do("cancel", cluster_name="c", all=True)

        async def gone():
            node.note("idle", {})
            return await client.state() is None

        await client.until(gone)
        assert client.world.nodes == {}

    on_server(scenario, minute_s=0.05)


def test_no_secret_is_in_clear_in_any_file_or_listing(on_server):
    canary = "c4n4ry-v4lue"

    async def scenario(client):
        task = {"envs": {"A": canary}, "secrets": {"S": canary + "2"}}
        await client.launch(task=task, entrypoint=f"sky launch --env A={canary} --secret 'S={canary}2' x.yaml")
        (node,) = client.world.nodes.values()
        assert node.submitted[0].secrets == {"S": canary + "2"}
        listing = (await client.http.get("/v1/requests?all=1")).text + json.dumps(await client.read("status"))
        assert canary not in listing
        found = [str(p) for p in client.home.root.rglob("*") if p.is_file() and canary.encode() in p.read_bytes()]
        assert found == []
        rows = await client.services.db.read(every_value)
        assert "echo hi" in rows  # it does look at what is stored
        assert canary not in rows
        assert node.token not in rows
        assert node.token.encode() not in b"".join(path.read_bytes() for path in client.home.root.glob("skyinfra.db*"))

    on_server(scenario)


def every_value(db):
    """All that the database holds, as text."""
    tables = reversed(metadata.sorted_tables)
    return "".join(str(tuple(row)) for table in tables for row in db.execute(table.select()))


def test_a_launch_interrupted_by_a_stop_goes_on_with_the_next_server(on_servers):
    async def scenario(start):
        async with start() as client:
            client.world.gate = asyncio.Event()
            request_id = await client.submit("launch", task={"run": "x"}, cluster_name="c")
            await client.until(lambda: client.world.operations)
        assert client.world.cancelled, "the worker was told"
        client.world.gate = None
        async with start() as client:
            outcome = await client.result(request_id)
            assert outcome["status"] == "SUCCEEDED", outcome
            payload = (await client.http.get(f"/v1/requests/{request_id}")).json()
            assert [o["state"] for o in payload["operations"]] == ["cancelled", "succeeded"]
            assert await client.state() == "UP"

    on_servers(scenario)


def test_operations_without_a_request_are_settled_at_the_start(on_servers):
    async def scenario(start):
        async with start() as client:
            await client.launch()
            await client.services.db.write(
                lambda db: db.exec_driver_sql("UPDATE operations SET state = 'running', finished_at = NULL")
            )
        async with start() as client:
            await client.until(lambda: client.world.settled)

    on_servers(scenario)
