"""The stack operations against the real engine, provider and agent."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import fcntl
import json
import os
import subprocess
import time
from pathlib import Path

import pytest

from skyinfra.channels import connect
from skyinfra.model.spec import Slot
from skyinfra.runtime.protocol import JobSubmit
from skyinfra.stacks import processes
from skyinfra.stacks.backend import FileBackend
from skyinfra.stacks.clouds.local import machine as machines
from skyinfra.stacks.engine import find_engine
from skyinfra.stacks.folder import OperationFolder
from skyinfra.stacks.plan import LATER
from skyinfra.stacks.workspace import engine_env, write_project

pytestmark = pytest.mark.engine

TOKEN = "canary-agent-token"


def agent_record(cluster, machine):
    return json.loads((cluster.home.nodes / machine / "agent" / "agent.json").read_text())


def test_up_creates_a_second_up_changes_nothing_and_destroy_leaves_nothing(cluster):
    created = cluster.up()
    assert (created.outcome, created.message) == ("succeeded", "")
    assert created.changes.create == 4  # stack, cluster, machine, agent
    assert created.version == 1
    [node] = created.nodes
    assert (node["slot"], node["id"], node["incarnation"]) == (0, cluster.machine, 0)
    assert Path(node["channel"]["socket"]).is_socket()

    again = cluster.up()
    assert again.outcome == "succeeded"
    assert dataclasses.asdict(again.changes) == {"create": 0, "update": 0, "replace": 0, "delete": 0, "same": 4}
    assert (again.version, again.nodes) == (1, created.nodes)

    gone = cluster.run("destroy")
    assert (gone.outcome, gone.leftovers) == ("succeeded", ())
    assert cluster.left() == []


@pytest.mark.slow
def test_destroying_what_was_never_made_succeeds(cluster):
    assert cluster.run("destroy").outcome == "succeeded"
    assert cluster.left() == []


@pytest.mark.slow
def test_a_preview_of_a_new_cluster_leaves_nothing(cluster):
    planned = cluster.run("preview", cluster.spec)
    assert (planned.outcome, planned.changes.create) == ("succeeded", 4)
    assert [(line["type"], line["op"]) for line in planned.plan] == [
        ("skyinfra:index:Cluster", "create"),
        ("skyinfra:local:Machine", "create"),
        ("skyinfra:index:Agent", "create"),
    ]
    assert cluster.left() == []


def test_a_preview_of_a_cluster_that_is_up_names_each_change_and_its_cause_and_writes_nothing(cluster):
    cluster.up()

    def files():
        return {path: path.read_bytes() for path in cluster.home.backend.rglob("*") if path.is_file()}

    before = files()
    changed = cluster.run("preview", cluster.slot(cpus=2.0, agent_generation=1))
    assert [(line["op"], line["causes"], line["refused"]) for line in changed.plan] == [
        ("same", [], False),
        ("update", [{"property": "cpus", "before": 1, "after": 2, "replaces": False}], False),
        ("update", [{"property": "generation", "before": 0, "after": 1, "replaces": False}], False),
    ]
    replaced = cluster.run("preview", cluster.slot(incarnation=1))
    by_type = {line["type"].rpartition(":")[2]: line for line in replaced.plan}
    cause = {"property": "incarnation", "before": 0, "after": 1, "replaces": True}
    assert (by_type["Machine"]["op"], by_type["Machine"]["causes"]) == ("replace", [cause])
    assert by_type["Machine"]["refused"]
    [why] = by_type["Agent"]["causes"]
    assert (why["property"], why["after"]) == ("machine_id", LATER)
    assert not any(line["refused"] for line in cluster.run("preview", cluster.slot(incarnation=1), consent=("*",)).plan)
    stopped = cluster.run("preview", dataclasses.replace(cluster.spec, power="stopped"))
    assert [line["op"] for line in stopped.plan] == ["same", "update", "delete"]
    assert files() == before


def test_a_preview_sees_a_machine_that_is_gone_although_the_state_still_has_it(cluster):
    cluster.up()
    machines.delete(cluster.home, cluster.machine)
    planned = cluster.run("preview", cluster.spec)
    assert [line["op"] for line in planned.plan] == ["same", "create", "create"]
    assert cluster.machines() == []


def test_a_generation_restarts_the_agent_and_neither_the_machine_nor_its_job(cluster):
    node = cluster.up().nodes[0]

    async def start_job():
        async with await connect(node, TOKEN) as agent:
            return await agent.submit(JobSubmit(key="k", run="echo $$ > ~/pid; exec sleep 300"))

    asyncio.run(start_job())
    pid_file = cluster.home.nodes / cluster.machine / "home" / "pid"
    assert processes.wait_until(lambda: pid_file.exists() and bool(pid_file.read_text().strip()), 10)
    job = processes.Identity.of(int(pid_file.read_text()))
    before = agent_record(cluster, cluster.machine)

    result = cluster.up(cluster.slot(agent_generation=1))
    assert (result.outcome, result.changes.update, result.changes.same) == ("succeeded", 1, 3)
    after = agent_record(cluster, cluster.machine)
    assert after["generation"] == 1
    assert after["pid"] != before["pid"]
    assert processes.alive(job)

    assert cluster.run("destroy").outcome == "succeeded"
    assert not processes.alive(job)
    assert cluster.left() == []


@pytest.mark.slow
def test_a_dead_agent_comes_back_with_the_next_generation(cluster):
    cluster.up()
    os.kill(agent_record(cluster, cluster.machine)["pid"], 9)
    result = cluster.up(cluster.slot(agent_generation=1))
    assert (result.outcome, result.message) == ("succeeded", "")
    assert cluster.machines()[0]["agent"] == "alive"


@pytest.mark.slow
def test_stopping_keeps_the_disk_and_starting_brings_the_agent_back(cluster):
    cluster.up()
    kept = cluster.home.nodes / cluster.machine / "home" / "kept"
    kept.write_text("x")
    stopped = cluster.up(dataclasses.replace(cluster.spec, power="stopped"))
    assert stopped.outcome == "succeeded"
    assert stopped.nodes[0]["channel"] is None
    assert [(seen["state"], seen["agent"]) for seen in cluster.machines()] == [("stopped", "dead")]
    assert cluster.agents() == []

    started = cluster.up(dataclasses.replace(cluster.spec, boot=1))
    assert started.outcome == "succeeded"
    assert agent_record(cluster, cluster.machine)["boot"] == 1
    assert kept.read_text() == "x"


def test_replacing_a_machine_needs_consent_and_is_refused_by_name(cluster):
    cluster.up()
    replaced = cluster.slot(incarnation=1)
    refused = cluster.up(replaced)
    assert (refused.outcome, refused.kind) == ("failed", "consent")
    assert f"{cluster.spec.stack}-0" in refused.message
    assert [seen["id"] for seen in cluster.machines()] == [cluster.machine]

    allowed = cluster.up(replaced, consent=(refused.detail.strip(),))
    assert allowed.outcome == "succeeded"
    assert [seen["incarnation"] for seen in cluster.machines()] == [1]
    assert len(cluster.agents()) == 1


def test_a_capacity_error_on_demand_is_classified_and_used_up(cluster):
    (cluster.home.root / "local.yaml").write_text("errors: [{on: create, kind: capacity, message: none today}]\n")
    failed = cluster.up()
    assert (failed.outcome, failed.kind) == ("failed", "capacity")
    assert "none today" in failed.message
    assert cluster.machines() == []
    assert cluster.up().outcome == "succeeded"


def test_what_cannot_be_deleted_is_named(cluster):
    cluster.up()
    (cluster.home.root / "local.yaml").write_text("errors: [{on: delete, kind: transient, message: no, count: 2}]\n")
    failed = cluster.run("destroy")
    assert (failed.outcome, failed.kind, failed.leftovers) == ("failed", "leftovers", (cluster.machine,))
    assert cluster.run("destroy").outcome == "succeeded"
    assert cluster.left() == []


@pytest.mark.slow
def test_gpus_are_leased_to_one_cluster_and_given_back(cluster):
    (cluster.home.root / "local.yaml").write_text("gpus: {H100: 2}\n")
    assert cluster.up(cluster.slot(gpus=("H100", 2))).outcome == "succeeded"
    assert len(list(cluster.home.locks.glob("gpu-*"))) == 2
    assert cluster.run("destroy").outcome == "succeeded"
    assert cluster.left() == []


def test_half_written_attributes_of_a_killed_engine_do_not_stop_the_next_operation(cluster):
    cluster.up()
    (folder,) = (cluster.home.backend / ".pulumi" / "stacks").iterdir()
    (folder / f"{cluster.spec.stack}.json.attrs").write_text("")
    assert cluster.up(cluster.slot(agent_generation=1)).outcome == "succeeded"
    (folder / f"{cluster.spec.stack}.json.attrs").write_text("{")
    assert cluster.run("destroy").outcome == "succeeded"
    assert cluster.left() == []


def test_a_cancelled_up_ends_quickly_and_the_next_one_is_clean(cluster):
    state = cluster.home.nodes / cluster.machine / "agent"
    state.mkdir(parents=True)
    with (state / "agent.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # the agent waits for it, so its Create is under way
        running = cluster.begin("up", cluster.spec)
        assert processes.wait_until(lambda: (state / "start.json").exists(), 20)
        asked = time.monotonic()
        running.cancel()
        running.wait()
        assert time.monotonic() - asked < 10
    assert running.cancelled
    result = OperationFolder(cluster.home, running.request.id).result()
    assert result is not None
    assert result.outcome == "cancelled"
    assert cluster.up().outcome == "succeeded"
    assert len(cluster.agents()) == 1


@pytest.mark.slow
def test_an_operation_past_its_deadline_is_cancelled(cluster):
    result = cluster.up(deadline=time.time() - 1)
    assert (result.outcome, result.message) == ("cancelled", "its deadline passed")
    assert cluster.run("destroy").outcome == "succeeded"
    assert cluster.left() == []


@pytest.mark.slow
def test_another_version_than_expected_is_refused(cluster):
    cluster.up()
    refused = cluster.up(cluster.slot(agent_generation=1), expect_version=7)
    assert (refused.outcome, refused.kind) == ("failed", "engine")
    assert cluster.up(cluster.slot(agent_generation=1), expect_version=1).outcome == "succeeded"


@pytest.mark.parametrize(
    ("keep", "earlier", "said"),
    [
        (100, "bak", "checkpoint before it"),
        (0, "bak", "is empty; went back"),
        pytest.param(0, "history", ".checkpoint.json", marks=pytest.mark.slow),
        (0, "none", "there is none before it"),
    ],
)
def test_a_torn_or_empty_checkpoint_is_never_fatal_and_said(cluster, keep, earlier, said):
    cluster.up()
    root = cluster.home.backend / ".pulumi"
    path = root / "stacks" / "skyinfra" / f"{cluster.spec.stack}.json"
    path.write_bytes(path.read_bytes()[:keep])
    if earlier != "bak":
        path.with_suffix(".json.bak").unlink()
    if earlier == "none":
        for old in [*root.glob("history/skyinfra/*/*.checkpoint.json"), *root.glob("backups/skyinfra/*/*")]:
            old.unlink()
    planned = cluster.run("preview", cluster.spec)
    assert planned.outcome == "succeeded"
    assert path.stat().st_size == keep  # a preview mends nothing

    running = cluster.begin("up", cluster.spec)
    result = running.wait()
    assert (result.outcome, result.message) == ("succeeded", "")
    assert any(event.kind == "recover" and said in event.text for event in running.events)
    assert len(cluster.machines()) == len(cluster.agents()) == 1
    assert cluster.run("destroy").outcome == "succeeded"
    assert cluster.left() == []


@pytest.mark.slow
def test_a_destroy_without_any_readable_state_goes_by_what_the_cloud_shows(cluster):
    cluster.up()
    for path in (cluster.home.backend / ".pulumi" / "stacks" / "skyinfra").glob("*.json*"):
        path.write_bytes(b"{")
    assert cluster.run("destroy").outcome == "succeeded"
    assert cluster.left() == []


@pytest.mark.slow
def test_a_machine_removed_behind_our_back_is_made_again(cluster):
    cluster.up()
    machines.delete(cluster.home, cluster.machine)
    result = cluster.up()
    assert (result.outcome, result.message) == ("succeeded", "")
    assert [(seen["state"], seen["agent"]) for seen in cluster.machines()] == [("running", "alive")]


def test_the_agents_token_is_only_where_it_must_be(cluster):
    node = cluster.up().nodes[0]
    token_file = cluster.home.nodes / cluster.machine / "agent" / "token"
    with_token = [
        path for path in cluster.home.root.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()
    ]
    assert with_token == [token_file]
    assert token_file.stat().st_mode & 0o777 == 0o600
    assert Path(node["channel"]["socket"]).parent.stat().st_mode & 0o777 == 0o700
    for process in processes.marked(f"SKYINFRA_HOME={cluster.home.root}"):
        with contextlib.suppress(OSError):
            for name in ("environ", "cmdline"):
                assert TOKEN.encode() not in Path(f"/proc/{process.pid}/{name}").read_bytes()


def test_a_shortage_in_one_slot_ends_the_whole_up_as_a_shortage(cluster):
    (cluster.home.root / "local.yaml").write_text("errors: [{on: create, kind: capacity, message: full, slot: 1}]\n")
    spec = dataclasses.replace(cluster.spec, slots=(Slot(0), Slot(1), Slot(2)))
    failed = cluster.up(spec)
    assert (failed.outcome, failed.kind) == ("failed", "capacity")
    again = cluster.up(spec)
    assert (again.outcome, again.message) == ("succeeded", "")
    assert [node["slot"] for node in again.nodes] == [0, 1, 2]
    assert len(cluster.agents()) == 3
    assert cluster.run("destroy").outcome == "succeeded"
    assert cluster.left() == []


def test_an_agent_that_dies_while_it_starts_fails_the_up_and_the_next_one_repairs_it(cluster):
    cluster.arm("provider.agent.create.made")
    running = cluster.begin("up", cluster.spec)
    cluster.reached("provider.agent.create.made")
    assert processes.wait_until(lambda: bool(cluster.agents()), 10)
    os.kill(cluster.agents()[0], 9)
    cluster.release()
    failed = running.wait()
    assert (failed.outcome, failed.kind) == ("failed", "transient")
    assert "ended with code -9" in failed.message
    assert cluster.up().outcome == "succeeded"
    assert len(cluster.agents()) == 1


@pytest.mark.slow
def test_the_pulumi_cli_alone_can_refresh_and_destroy_what_we_made(cluster, tmp_path):
    created = cluster.up()
    project = tmp_path / "project"
    provider = FileBackend(cluster.home.backend).load(cluster.spec.stack).secrets_provider
    write_project(project, cluster.spec.stack, cluster.spec, provider)
    for words in (["refresh", "--yes", "--skip-preview"], ["destroy", "--yes", "--skip-preview", "--remove"]):
        said = subprocess.run(
            [find_engine(), *words, "--stack", cluster.spec.stack, "--non-interactive"],
            cwd=project,
            env=engine_env(cluster.home),
            capture_output=True,
            text=True,
        )
        assert said.returncode == 0, said.stdout + said.stderr
        assert (cluster.machines() == []) == (words[0] == "destroy")
    assert created.outcome == "succeeded"
    FileBackend(cluster.home.backend).forget(cluster.spec.stack)
    assert cluster.left() == []
