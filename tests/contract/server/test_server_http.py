"""The HTTP contract: who may call, what answers look like, how requests are listed, waited for, followed, cancelled."""

import asyncio

import pytest

from skyinfra.server.blobs import Limits
from skyinfra.testing import trees


def test_every_path_but_health_wants_the_token(on_server):
    async def scenario(client):
        bare = {"Authorization": ""}
        wrong = {"Authorization": "Bearer nonsense"}
        for path in ("/v1/version", "/v1/requests", "/v1/doctor", "/v1/openapi.json", "/v1/nothing", "/"):
            for headers in (bare, wrong):
                answer = await client.http.get(path, headers=headers)
                assert answer.status_code == 401, path
                assert answer.json()["type"] == "ApiServerAuthenticationError"
        answer = await client.http.get("/v1/health", headers=bare)
        assert answer.status_code == 200
        assert answer.json()["status"] == "healthy"
        assert answer.headers["X-Skyinfra-Api"] == "1"

    on_server(scenario)


def test_a_client_that_is_too_old_is_told_so(on_server):
    async def scenario(client):
        answer = await client.http.get("/v1/version", headers={"X-Skyinfra-Api": "0"})
        assert (answer.status_code, answer.json()["type"]) == (400, "APIVersionMismatchError")

    on_server(scenario)


@pytest.mark.parametrize(
    ("verb", "body", "status", "says"),
    [
        ("launch", {}, 400, "task: field required"),
        ("launch", {"task": {}, "cluster_name": 3}, 400, "cluster_name"),
        ("launch", {"task": {}, "blobs": {"x": {"digest": "zz", "kind": "dir"}}}, 400, "blobs.x.digest"),
        ("down", {"cluster_name": None}, 400, "cluster_name"),
        ("nonsense", {}, 404, "nonsense"),
    ],
)
def test_a_bad_body_names_the_field(on_server, verb, body, status, says):
    async def scenario(client):
        answer = await client.post(verb, body)
        assert answer.status_code == status
        assert says in answer.json()["message"]

    on_server(scenario)


def test_a_body_that_is_not_json_is_refused_without_repeating_it(on_server):
    async def scenario(client):
        answer = await client.http.post("/v1/requests/launch", content=b"{s3cr3t")
        assert answer.status_code == 400
        assert "s3cr3t" not in answer.text

    on_server(scenario)


def test_the_same_key_gives_the_same_id_and_another_body_409(on_server):
    async def scenario(client):
        key = {"Idempotency-Key": "k1"}
        body = {"cluster_name": "c", "job_ids": [1]}
        first = await client.post("cancel", body, **key)
        again = await client.post("cancel", body, **key)
        other = await client.post("cancel", {**body, "job_ids": [2]}, **key)
        assert first.json()["id"] == again.json()["id"]
        assert (other.status_code, other.json()["type"]) == (409, "RequestAlreadyExistsError")

    on_server(scenario)


def test_an_error_of_a_request_is_its_outcome(on_server):
    async def scenario(client):
        outcome = await client.do("down", cluster_name="nope")
        assert outcome["status"] == "FAILED"
        assert outcome["error"]["type"] == "ClusterDoesNotExist"
        assert outcome["error"]["hint"]

    on_server(scenario)


def test_reads_answer_inline_and_can_be_asked_for_by_id(on_server):
    async def scenario(client):
        answer = await client.read("status")
        assert (answer["status"], answer["result"]) == ("SUCCEEDED", [])
        assert (await client.result(answer["id"])) == {"status": "SUCCEEDED", "result": []}
        failed = await client.read("queue", cluster_name="nope")
        assert failed["error"]["type"] == "ClusterDoesNotExist"
        assert (await client.result(failed["id"]))["error"]["type"] == "ClusterDoesNotExist"

    on_server(scenario)


def test_ids_are_found_by_unique_prefix(on_server):
    async def scenario(client):
        ids = [await client.submit("down", cluster_name=f"n{n}") for n in range(3)]
        for request_id in ids:
            await client.result(request_id)
            found = (await client.http.get(f"/v1/requests/{request_id[:20]}")).json()
            assert found["request_id"] == request_id
        assert (await client.http.get("/v1/requests/zzz")).status_code == 404
        listing = (await client.http.get("/v1/requests?all=1")).json()["requests"]
        assert [r["request_id"] for r in listing] == ids[::-1]
        assert (await client.http.get("/v1/requests")).json()["requests"] == []
        assert "request_body" not in listing[0]

    on_server(scenario)


def test_waiting_for_a_result_ends_when_the_time_is_over(on_server):
    async def scenario(client):
        client.world.gate = asyncio.Event()
        request_id = await client.submit("launch", task={"run": "x"}, cluster_name="c")
        answer = await client.http.get(f"/v1/requests/{request_id}/result?wait_s=0.05")
        assert answer.status_code == 202
        client.world.gate.set()
        assert (await client.result(request_id))["status"] == "SUCCEEDED"

    on_server(scenario)


def test_a_stream_resumes_at_its_offset_and_ends_with_the_status(on_server):
    async def scenario(client):
        request_id = await client.submit("launch", task={"run": "x"}, cluster_name="c")
        whole = (await client.http.get(f"/v1/requests/{request_id}/stream")).content
        rest = (await client.http.get(f"/v1/requests/{request_id}/stream?offset=100")).content
        assert whole[100:] == rest
        lines = await client.log_lines(request_id)
        assert lines[-1]["kind"] == "end"
        assert {"step", "operation", "resource", "log", "end"} == {line["kind"] for line in lines}
        machine = next(line for line in lines if line["kind"] == "resource")
        assert machine["type"] == "skyinfra:local:Machine"

    on_server(scenario)


def test_uploads_are_checked_and_kept(on_server):
    async def scenario(client):
        raw = trees.manifest(trees.file("a", b"x" * 3_000_000), trees.file("b", b"y"))
        digest = trees.digest_of(raw)
        url = f"/v1/blobs/{digest}"
        assert (await client.http.get(url + "/missing")).status_code == 404
        assert (await client.http.put(url, content=b"other")).status_code == 422
        assert (await client.http.put(url, content=raw)).status_code == 201
        assert (await client.http.put(url, content=raw)).status_code == 200
        both = [trees.digest_of(b"x" * 3_000_000), trees.digest_of(b"y")]
        assert (await client.http.get(url + "/missing")).json() == {"missing": both}
        wrong = bytearray(trees.pack([b"x" * 3_000_000, b"y"]))
        wrong[-1] ^= 1
        answer = await client.http.post("/v1/blobs", content=bytes(wrong))
        assert (answer.status_code, both[1] in answer.json()["message"]) == (422, True)
        assert (await client.http.get(url + "/missing")).json() == {"missing": both[1:]}, "whole chunks are kept"
        assert (await client.http.post("/v1/blobs", content=trees.pack([b"y"]))).status_code == 201
        assert (await client.http.get(url + "/missing")).json() == {"missing": []}
        assert (await client.http.put("/v1/blobs/..%2Fx", content=b"")).status_code in (400, 404)
        assert [p.name for p in client.home.blobs.iterdir()] == [digest]

    on_server(scenario)


@pytest.mark.parametrize(
    ("limits", "status", "says"),
    [
        (Limits(tree_bytes=2_000_000), 413, "have 0.0 GB, and this server takes 0.0 GB at a time"),
        (Limits(reserve_bytes=1 << 60), 507, "server's disk"),
    ],
)
def test_a_tree_that_is_too_much_is_refused_with_what_to_do(on_server, limits, status, says):
    async def scenario(client):
        raw = trees.manifest(trees.file("a", b"x" * 3_000_000))
        answer = await client.http.put(f"/v1/blobs/{trees.digest_of(raw)}", content=raw)
        assert (answer.status_code, answer.json()["type"]) == (status, "ValueError" if status == 413 else "OSError")
        assert says in answer.json()["message"]
        assert ".skyignore" in answer.json()["hint"]
        assert list(client.home.blobs.iterdir()) == []

    on_server(scenario, uploads=limits)


def test_a_full_store_makes_room_of_what_is_not_in_use_and_says_when_it_cannot(on_server):
    async def scenario(client):
        first, second = trees.pack([b"a" * 1000]), trees.pack([b"b" * 1000])
        assert (await client.http.post("/v1/blobs", content=first)).status_code == 201
        answer = await client.http.post("/v1/blobs", content=second)
        assert answer.status_code == 507
        assert "in use" in answer.json()["message"]
        assert "SKYINFRA_UPLOAD_STORE_GB" in answer.json()["hint"]

    on_server(scenario, uploads=Limits(store_bytes=1500))


def test_shutdown_is_asked_for_over_http(on_server):
    async def scenario(client):
        answer = await client.http.post("/v1/shutdown")
        assert answer.status_code == 202
        assert client.services.stop_asked.is_set()

    on_server(scenario)


def test_a_query_parameter_of_the_wrong_type_is_a_400_in_our_form(on_server):
    async def scenario(client):
        answer = await client.http.get("/v1/requests?all=many")
        assert answer.status_code in (400, 422)
        assert set(answer.json()) == {"type", "message", "args", "attributes", "hint", "detail"}

    on_server(scenario)
