"""`AgentClient` against a real agent, over every kind of channel."""

from __future__ import annotations

import asyncio
import io
import tarfile

import pytest

from skyinfra.channels import AgentError, Unreachable, connect
from skyinfra.runtime import package
from skyinfra.runtime.protocol import FilesApply, FilesMissing, JobSubmit, NodeConfig
from skyinfra.testing import trees


async def read_log(agent, job_id, **options):
    async with agent.log(job_id, **options) as stream:
        return stream.start_offset, b"".join([chunk async for chunk in stream.chunks])


async def final_state(agent, job_id):
    async for event in agent.events():
        if event.kind == "job" and event.body["job_id"] == job_id and event.body["ended_at"]:
            return event.body["state"]
    raise AssertionError("the stream ended")


def test_a_job_is_submitted_followed_and_its_log_resumes_at_an_offset(node):
    async def act(agent):
        health = await agent.health()
        assert (health.version, health.boot, health.state) == (package.agent_version(), 0, "ready")
        await agent.put_config(NodeConfig(node_table=[{"slot": 0, "ip": "127.0.0.1", "port": 0}], cpus=2))
        job_id = await agent.submit(JobSubmit(key="k", run="echo one; echo two", envs={"A": "b"}))
        assert await agent.submit(JobSubmit(key="k", run="echo one; echo two", envs={"A": "b"})) == job_id
        start, whole = await asyncio.wait_for(read_log(agent, job_id, follow=True), 20)
        assert start == 0
        assert whole.count(b"\n") >= 2
        assert b"one" in whole
        assert await read_log(agent, job_id, offset=5) == (5, whole[5:])
        assert await asyncio.wait_for(final_state(agent, job_id), 20) == "SUCCEEDED"
        row = await agent.job(job_id)
        assert (row.state, row.exit_codes) == ("SUCCEEDED", [0])
        assert [row.job_id for row in await agent.jobs([job_id])] == [job_id]
        assert (await agent.cancel(job_id)).state == "SUCCEEDED"
        async with agent.job_files(job_id) as chunks:
            data = b"".join([chunk async for chunk in chunks])
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            assert any(name.endswith("run.log") for name in archive.getnames())

    node.talk(act)


def test_a_tree_is_sent_once_and_put_in_its_place(node, tmp_path):
    raw, pack = trees.manifest(trees.file("hello", b"hi")), trees.pack([b"hi"])
    digest, manifest = trees.digest_of(raw), tmp_path / "manifest"
    manifest.write_bytes(raw)
    wanted = FilesApply([{"digest": digest, "dest": "~/sky_workdir", "kind": "dir"}])

    async def parts():
        for at in range(0, len(pack), 10):
            yield pack[at : at + 10]

    async def act(agent):
        assert await agent.apply(wanted) == FilesMissing(trees=[digest])
        assert not await agent.has_file(digest)
        await agent.put_file(digest, manifest)
        assert await agent.has_file(digest)
        assert await agent.apply(wanted) == FilesMissing(chunks=[trees.digest_of(b"hi")])
        await agent.put_pack(parts(), len(pack))
        assert await agent.apply(wanted) == FilesMissing()
        with pytest.raises(AgentError) as caught:
            await agent.put_file("0" * 64, manifest)
        assert caught.value.type == "digest"

    node.talk(act)
    assert node.file("sky_workdir/hello") == b"hi"


def test_a_draining_agent_refuses_and_accepts_again(node):
    async def act(agent):
        await agent.drain("stop")
        with pytest.raises(AgentError) as caught:
            await agent.submit(JobSubmit(key="k", run="true"))
        assert (caught.value.status, caught.value.type) == (409, "draining")
        await agent.undrain()
        assert await agent.submit(JobSubmit(key="k", run="true")) > 0

    node.talk(act)


def test_a_wrong_token_is_refused(node):
    async def act(agent):
        with pytest.raises(AgentError) as caught:
            await agent.health()
        assert caught.value.status == 401

    node.talk(act, token="wrong")


def test_nobody_at_the_other_end_is_unreachable(node):
    async def act(agent):
        with pytest.raises(Unreachable):
            await agent.health()

    node.elsewhere().talk(act)


@pytest.mark.parametrize("channel", [None, {"kind": "pigeon"}])
def test_no_way_at_all_is_unreachable(channel):
    with pytest.raises(Unreachable):
        asyncio.run(connect({"slot": 0, "channel": channel}, "token"))
