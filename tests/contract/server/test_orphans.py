"""Machines with a tag of ours and no row: listed, adopted; another server's are not even seen."""

from tests.contract.server.conftest import FakeNode


def test_only_what_carries_our_tag_is_an_orphan(on_server):
    async def scenario(client):
        await client.launch("c")
        client.world.nodes["lost-0a1b2c"] = FakeNode("lost-0a1b2c", "token")
        client.world.nodes["theirs-0a1b2c"] = FakeNode("theirs-0a1b2c", "token")
        client.world.server_of = {"theirs-0a1b2c": "another1", "lost-0a1b2c": client.services.server_id}
        found = (await client.read("orphans"))["result"]
        assert [(one["stack"], one["name"]) for one in found["orphans"]] == [("lost-0a1b2c", "lost")]
        assert found["unseen"] == {}

    on_server(scenario)


def test_adopting_twice_gives_one_cluster_and_down_removes_it(on_server):
    async def scenario(client):
        client.world.nodes["lost-0a1b2c"] = FakeNode("lost-0a1b2c", "token")
        for _ in range(2):
            adopted = await client.do("adopt", cluster_name="lost", stack="lost-0a1b2c")
            assert adopted["result"]["cluster_name_on_cloud"] == "lost-0a1b2c"
        assert await client.state("lost") == "INIT"
        assert (await client.read("orphans"))["result"]["orphans"] == []
        assert (await client.do("down", cluster_name="lost"))["status"] == "SUCCEEDED"
        assert client.world.nodes == {}

    on_server(scenario)


def test_what_is_no_orphan_is_not_adopted(on_server):
    async def scenario(client):
        error = (await client.do("adopt", cluster_name="x", stack="nothing-000000"))["error"]
        assert error["type"] == "ClusterDoesNotExist"
        assert error["hint"] == "`skyinfra reap --dry-run` lists what there is"

    on_server(scenario)


def test_a_cloud_that_does_not_answer_is_named(on_server):
    async def scenario(client):
        from skyinfra.stacks.clouds.failures import CloudError

        def observe(stack=None, regions=()):
            raise CloudError("credentials", "the token has expired")

        client.world.observe = observe
        assert (await client.read("orphans"))["result"] == {
            "orphans": [],
            "unseen": {"local": "the token has expired"},
        }

    on_server(scenario)
