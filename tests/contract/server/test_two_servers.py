"""Two servers on one database: one acts, the other stands by and takes over; what the first still writes is refused."""

import asyncio
import shutil

import pytest

from skyinfra.store.leases import Deposed


def share_keys(tmp_path):
    """The second server's folder with the first one's keys, as an operator would copy them."""
    shutil.copytree(tmp_path / "home" / "keys", tmp_path / "second" / "keys")
    (tmp_path / "second").chmod(0o700)


def test_one_acts_and_the_other_takes_over_when_it_stops(on_servers, tmp_path):
    async def scenario(start):
        async with start() as first:
            share_keys(tmp_path)
            await first.launch("c")
            async with start("second", lease_s=30.0) as second:
                refused = await second.post("launch", {"task": {}})
                assert (refused.status_code, refused.json()["type"]) == (503, "ServerTemporarilyUnavailableError")
                assert "home" in refused.json()["hint"]
                assert (await second.http.get("/v1/health")).status_code == 200
                assert await first.state("c") == "UP"
                await first.services.stop()
                first.services.stop = nothing
                await second.until(lambda: second.services.acting)
                assert await second.state("c") == "UP"
                assert (await second.do("exec", cluster_name="c", task={"run": "true"}))["status"] == "SUCCEEDED"

    on_servers(scenario)


async def nothing():
    """The server was stopped in the scenario."""


def test_a_silent_server_is_replaced_and_can_write_nothing_any_more(on_servers, tmp_path):
    async def scenario(start):
        async with start(lease_s=0.3) as first:
            share_keys(tmp_path)
            first.world.gate = asyncio.Event()
            request_id = await first.submit("launch", task={"run": "true"}, cluster_name="c")
            await first.until(lambda: first.world.operations)
            lease = next(task for task in first.services._tasks if task.get_name() == "lease")
            lease.cancel()  # as if this process hung
            async with start("second", lease_s=0.3) as second:
                await second.until(lambda: second.services.acting)
                with pytest.raises(Deposed):
                    await first.services.db.write(lambda db: None)
                first.world.gate.set()
                assert (await second.result(request_id))["status"] == "SUCCEEDED"
                assert await second.state("c") == "UP"
                assert len(second.world.nodes) == 1
                jobs = (await second.read("queue", cluster_name="c"))["result"]
                assert len(jobs) == 1

    on_servers(scenario)


def test_who_loses_the_lease_stops_itself(on_servers, tmp_path):
    async def scenario(start):
        async with start(lease_s=0.3) as first:
            await first.services.db.write(
                lambda db: db.exec_driver_sql("UPDATE leases SET fence = fence + 1, holder = 'somebody else'")
            )
            await asyncio.wait_for(first.services.stop_asked.wait(), 10)

    on_servers(scenario)


def test_a_new_server_of_the_same_folder_does_not_wait(on_servers):
    async def scenario(start):
        async with start(lease_s=600.0) as first:
            # Killed: it never let go.
            first.services.leader.let_go = nothing
        async with start(lease_s=600.0) as second:
            assert second.services.acting

    on_servers(scenario)


def test_a_server_with_another_key_is_refused(on_servers, tmp_path, database_url):
    async def scenario(start):
        async with start():
            with pytest.raises(RuntimeError, match=r"sealed with another key than .*secrets\.key"):
                async with start("second"):
                    pass

    on_servers(scenario)
