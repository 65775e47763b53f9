"""Tokens, roles and workspaces over HTTP: who may do what, and what becomes of those who may not."""

import hashlib

import httpx2
import pytest

from skyinfra.model.states import RoleName
from skyinfra.server import identity
from skyinfra.server.identity import Principal, Thing, authorize
from skyinfra.server.intake import READ_VERBS
from skyinfra.server.tokens import BadTokens


async def as_someone(client, **token):
    """A client with a token of its own: `(http, the token's row)`."""
    made = await client.http.post("/v1/tokens", json={"name": "t", **token})
    assert made.status_code == 201, made.text
    headers = {"Authorization": f"Bearer {made.json()['token']}"}
    return httpx2.AsyncClient(base_url=client.http.base_url, headers=headers, timeout=15), made.json()


def declare(client, text):
    client.home.config.write_text(text)


def test_every_read_verb_is_open_to_viewers_or_to_administrators_alone():
    assert READ_VERBS <= identity.VIEWER_MAY | identity.USER_MAY_NOT
    closed = READ_VERBS & identity.USER_MAY_NOT
    assert closed == {"orphans", "ssh_up", "ssh_down"}, "what looks at others' things, or changes the server's pools"


def test_a_token_is_shown_once_and_only_its_digest_is_stored(on_server):
    async def scenario(client):
        http, made = await as_someone(client, name="laptop", user="ann")
        token = made["token"]
        assert token.startswith("sky_")
        about = (await http.get("/v1/version")).json()
        assert about["user"] == {"id": made["user_id"], "name": "ann", "role": "user"}
        listed = (await client.http.get("/v1/tokens?all_users=1")).json()["tokens"]
        assert [(row["name"], row["user_name"]) for row in listed] == [("laptop", "ann")]
        assert token not in str(listed)
        stored = await client.services.db.read(lambda db: db.exec_driver_sql("SELECT * FROM tokens").fetchall())
        assert hashlib.sha256(token.encode()).hexdigest() in str(stored)
        assert token not in str(stored)
        for path in client.home.root.glob("skyinfra.db*"):
            assert token.encode() not in path.read_bytes()

    on_server(scenario)


def test_a_revoked_token_stops_at_once_and_an_expired_one_in_time(on_server):
    async def scenario(client):
        http, made = await as_someone(client)
        assert (await http.get("/v1/version")).status_code == 200
        assert (await client.http.delete(f"/v1/tokens/{made['id']}")).json()["revoked_at"] is not None
        assert (await http.get("/v1/version")).status_code == 401
        again = await client.http.delete(f"/v1/tokens/{made['id']}")
        assert again.status_code == 200
        now = client.services.tokens._clock()
        http, _ = await as_someone(client, expires_in_s=60)
        assert (await http.get("/v1/version")).status_code == 200
        client.services.tokens._clock = lambda: now + 61
        assert (await http.get("/v1/version")).status_code == 401

    on_server(scenario)


def test_a_viewer_looks_and_does_nothing(on_server):
    async def scenario(client):
        await client.launch("c")
        http, _ = await as_someone(client, role="viewer", user="vi")
        for verb, body in (
            ("launch", {"task": {}}),
            ("down", {"cluster_name": "c"}),
            ("exec", {"task": {}, "cluster_name": "c"}),
        ):
            answer = await http.post(f"/v1/requests/{verb}", json=body)
            assert (answer.status_code, answer.json()["type"]) == (403, "PermissionDeniedError"), verb
            assert "viewer" in answer.json()["message"]
        for path in ("/v1/doctor", "/v1/server-log"):
            assert (await http.get(path)).status_code == 403
        assert (await http.post("/v1/shutdown")).status_code == 403
        assert (await http.post("/v1/tokens", json={"name": "x"})).status_code == 403
        assert (await http.put("/v1/blobs/" + "0" * 64, content=b"x")).status_code == 403
        seen = (await http.post("/v1/requests/status", json={"all_users": True})).json()["result"]
        assert [record["name"] for record in seen] == ["c"]
        assert (await http.post("/v1/requests/status", json={})).json()["result"] == []  # none of their own
        assert (await http.get("/v1/clusters/c/jobs/1/log?follow=0")).status_code == 200
        assert await client.state("c") == "UP"

    on_server(scenario)


def test_a_user_works_but_does_not_administer(on_server):
    async def scenario(client):
        http, made = await as_someone(client, user="ann")
        body = {"task": {"run": "true"}, "cluster_name": "hers"}
        request_id = (await http.post("/v1/requests/launch", json=body)).json()["id"]
        assert (await http.get(f"/v1/requests/{request_id}/result?wait_s=10")).json()["status"] == "SUCCEEDED"
        record = (await http.post("/v1/requests/status", json={})).json()["result"][0]
        assert (record["user_name"], record["user_hash"]) == ("ann", made["user_id"])
        for path in ("/v1/doctor", "/v1/tokens?all_users=1"):
            assert (await http.get(path)).status_code == 403, path
        assert (await http.post("/v1/shutdown")).status_code == 403
        assert (await http.post("/v1/tokens", json={"name": "x", "role": "admin"})).status_code == 403
        assert (await http.post("/v1/tokens", json={"name": "x", "user": "bob"})).status_code == 403
        mine = await http.post("/v1/tokens", json={"name": "ci"})
        assert (mine.status_code, mine.json()["user_id"]) == (201, made["user_id"])
        assert (await http.delete("/v1/requests?all_users=1")).status_code == 403

    on_server(scenario)


def test_requests_of_others_are_not_cancelled_by_a_user(on_server):
    import asyncio

    async def scenario(client):
        client.world.gate = asyncio.Event()
        request_id = await client.submit("launch", task={"run": "true"}, cluster_name="mine")
        http, _ = await as_someone(client, user="ann")
        answer = await http.delete(f"/v1/requests/{request_id}")
        assert (answer.status_code, answer.json()["type"]) == (403, "PermissionDeniedError")
        own = (await http.get("/v1/requests?all_users=0")).json()["requests"]
        everybody = (await http.get("/v1/requests")).json()["requests"]
        assert (own, [row["request_id"] for row in everybody]) == ([], [request_id])
        client.world.gate.set()

    on_server(scenario)


def test_wrong_tokens_are_refused_after_a_while_and_good_ones_still_work(on_server):
    async def scenario(client):
        known, _ = await as_someone(client)
        assert (await known.get("/v1/version")).status_code == 200
        wrong = {"Authorization": "Bearer sky_nonsense"}
        answers = [await client.http.get("/v1/version", headers=wrong) for _ in range(25)]
        assert [answer.status_code for answer in answers] == [401] * 20 + [429] * 5
        assert answers[-1].json()["message"].startswith("too many wrong tokens from 127.0.0.1")
        assert (await client.http.get("/v1/version")).status_code == 200
        assert (await known.get("/v1/version")).status_code == 200

    on_server(scenario)


def test_wrong_tokens_are_counted_per_address_in_bounded_memory():
    now = 0.0
    bad = BadTokens(limit=2, window_s=60, addresses=10, clock=lambda: now)
    for _ in range(2):
        bad.note("10.0.0.1")
    assert bad.wait_s("10.0.0.1") == 60
    assert bad.wait_s("10.0.0.2") == 0
    for last in range(2):
        bad.note(f"2001:db8::{last}")
    assert bad.wait_s("2001:db8::77") == 60  # one network, one count
    now = 61.0
    assert bad.wait_s("10.0.0.1") == 0
    for number in range(1000):
        bad.note(f"10.1.{number % 250}.{number // 250}")
    assert len(bad) == 10


def test_names_are_unique_in_each_workspace_and_a_name_alone_finds_its_cluster(on_server):
    async def scenario(client):
        assert (await client.launch("c", workspace="team-a"))["status"] == "SUCCEEDED"
        assert (await client.read("queue", cluster_name="c"))["result"][0]["job_id"] == 1
        assert (await client.launch("c", workspace="team-b"))["status"] == "SUCCEEDED"
        stacks = {(r["name"], r["workspace"]) for r in (await client.read("status"))["result"]}
        assert stacks == {("c", "team-a"), ("c", "team-b")}
        ambiguous = (await client.read("queue", cluster_name="c"))["error"]
        assert ambiguous["type"] == "WorkspaceAmbiguousError"
        assert "team-a, team-b" in ambiguous["message"]
        down = await client.post("down", {"cluster_name": "c"})
        assert (down.status_code, down.json()["type"]) == (400, "WorkspaceAmbiguousError")
        assert (await client.do("down", cluster_name="c", workspace="team-a"))["status"] == "SUCCEEDED"
        assert (await client.do("down", cluster_name="c"))["status"] == "SUCCEEDED"
        only = await client.read("status", workspace="team-b")
        assert only["result"] == []

    on_server(scenario)


@pytest.mark.parametrize("name", ["Team", "1st", "a" * 64, "a b", "a-"])
def test_a_bad_workspace_name_is_refused(on_server, name):
    async def scenario(client):
        answer = await client.post("launch", {"task": {}, "workspace": name})
        assert (answer.status_code, answer.json()["type"]) == (400, "InvalidWorkspaceNameError")

    on_server(scenario)


def test_a_private_workspace_is_closed_to_others(on_server):
    text = "workspaces:\n  lab: {private: true, allowed_users: [ann], read_access: [bob]}\n  open:\n"

    async def scenario(client):
        declare(client, text)
        assert (await client.launch("c", workspace="lab"))["status"] == "SUCCEEDED"
        ann, _ = await as_someone(client, user="ann")
        bob, _ = await as_someone(client, user="bob")
        cat, _ = await as_someone(client, user="cat")
        names = {}
        for who, http in (("ann", ann), ("bob", bob), ("cat", cat)):
            seen = (await http.post("/v1/requests/status", json={"all_users": True})).json()["result"]
            names[who] = ([r["name"] for r in seen], (await http.get("/v1/workspaces")).json()["accessible"])
        assert names == {
            "ann": (["c"], ["default", "lab", "open"]),
            "bob": (["c"], ["default", "lab", "open"]),
            "cat": ([], ["default", "open"]),
        }
        job = {"task": {"run": "true"}, "cluster_name": "c"}
        assert (await ann.post("/v1/requests/exec", json=job)).status_code == 202
        refused = await bob.post("/v1/requests/exec", json=job)
        assert (refused.status_code, refused.json()["type"]) == (403, "NoWorkspaceAccessError")
        hidden = await cat.post("/v1/requests/exec", json={**job, "workspace": "lab"})
        assert (hidden.status_code, hidden.json()["type"]) == (403, "NoWorkspaceAccessError")
        assert (await cat.get("/v1/clusters/c/jobs/1")).status_code == 404
        assert (await cat.get("/v1/requests?all=1")).json()["requests"] == []
        launched = (await ann.get("/v1/requests?all=1")).json()["requests"][-1]["request_id"]
        assert (await cat.get(f"/v1/requests/{launched}")).status_code == 404
        unknown = await ann.post("/v1/requests/launch", json={"task": {}, "workspace": "lob"})
        assert (unknown.status_code, "lab" in unknown.json()["message"]) == (400, True)

    on_server(scenario)


def test_the_preferred_workspace_is_used_when_none_is_named(on_server):
    async def scenario(client):
        put = await client.http.put("/v1/workspaces/preferred", json={"workspace": "lab"})
        assert put.status_code == 200
        assert (await client.http.get("/v1/workspaces")).json()["workspace"] == "lab"
        await client.launch("c")
        assert (await client.read("status"))["result"][0]["workspace"] == "lab"
        await client.http.put("/v1/workspaces/preferred", json={"workspace": None})
        assert (await client.http.get("/v1/workspaces")).json() == {
            "workspace": "default", "preferred": None, "accessible": ["default"],
        }  # fmt: skip

    on_server(scenario)


def test_who_may_enter_several_workspaces_but_not_default_must_name_one(on_server):
    text = """
workspaces:
  default: {private: true, allowed_users: []}
  a: {private: true, allowed_users: [ann, bob]}
  b: {private: true, allowed_users: [ann]}
"""

    async def scenario(client):
        declare(client, text)
        ann, _ = await as_someone(client, user="ann")
        bob, _ = await as_someone(client, user="bob")
        cat, _ = await as_someone(client, user="cat")
        told = await ann.get("/v1/workspaces")
        assert (told.status_code, told.json()["type"]) == (400, "WorkspaceAmbiguousError")
        assert (await bob.get("/v1/workspaces")).json()["workspace"] == "a"
        none = await cat.get("/v1/workspaces")
        assert (none.status_code, none.json()["type"]) == (403, "NoWorkspaceAccessError")

    on_server(scenario)


def test_a_broken_declaration_of_workspaces_leaves_the_last_good_one_in_force(on_server):
    async def scenario(client):
        declare(client, "workspaces: {lab: {private: true}}\n")
        http, _ = await as_someone(client, user="ann")
        body = {"task": {}, "workspace": "lab"}
        assert (await http.post("/v1/requests/launch", json=body)).status_code == 403
        declare(client, "workspaces: [\n")
        assert (await http.post("/v1/requests/launch", json=body)).status_code == 403

    on_server(scenario)


@pytest.mark.parametrize(
    ("role", "verb", "thing", "allowed"),
    [
        (RoleName.ADMIN, "shutdown", Thing(), True),
        (RoleName.USER, "launch", Thing("default"), True),
        (RoleName.USER, "shutdown", Thing(), False),
        (RoleName.USER, "cancel", Thing(owner="me"), True),
        (RoleName.USER, "cancel", Thing(owner="other"), False),
        (RoleName.USER, "status", Thing("shut"), False),
        (RoleName.USER, "status", Thing("glass"), True),
        (RoleName.USER, "down", Thing("glass"), False),
        (RoleName.VIEWER, "status", Thing("default"), True),
        (RoleName.VIEWER, "an unheard-of verb", Thing("default"), False),
    ],
)
def test_one_function_decides(role, verb, thing, allowed):
    principal = Principal("me", "me", "token", role, frozenset({"shut"}), frozenset({"glass"}))
    if allowed:
        authorize(principal, verb, thing)
    else:
        with pytest.raises(identity.PermissionDeniedError):
            authorize(principal, verb, thing)


def test_endpoints_costs_and_clouds_are_read(on_server):
    async def scenario(client):
        task = {"resources": {"ports": ["8080", "9000-9002"]}}
        await client.launch("c", task=task)
        found = (await client.read("endpoints", cluster_name="c"))["result"]
        assert found == {str(port): f"127.0.0.9:{port}" for port in (8080, 9000, 9001, 9002)}
        assert (await client.read("endpoints", cluster_name="c", port="9001"))["result"] == {"9001": "127.0.0.9:9001"}
        closed = (await client.read("endpoints", cluster_name="c", port=22))["error"]
        assert closed["type"] == "PortDoesNotExistError"
        assert (await client.read("endpoints", cluster_name="no"))["error"]["type"] == "ClusterNotUpError"
        alive = (await client.read("cost_report"))["result"][0]
        assert (alive["name"], alive["status"], alive["usage_intervals"][0][1]) == ("c", "UP", None)
        await client.do("down", cluster_name="c")
        gone = (await client.read("cost_report"))["result"][0]
        assert (gone["status"], gone["total_cost"], gone["num_nodes"]) == (None, 0.0, 1)
        begun, ended = gone["usage_intervals"][0]
        assert gone["duration"] == int(ended - begun)
        clouds = (await client.read("check"))["result"]["clouds"]
        assert clouds["local"]["enabled"]
        assert not clouds["aws"]["enabled"]
        assert (await client.read("check", infra_list=["nope"]))["error"]["type"] == "ValueError"

    on_server(scenario)
