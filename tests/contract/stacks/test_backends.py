"""One suite over every place where stacks may be kept: a folder, PostgreSQL, S3; and another's secrets provider."""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from skyinfra.stacks.backend import StateUnreadable, open_backend
from skyinfra.stacks.bucket import open_bucket
from skyinfra.stacks.engine import find_engine
from skyinfra.stacks.settings import load_settings
from skyinfra.stacks.workspace import user_env

pytestmark = [pytest.mark.engine, pytest.mark.timeout(240)]

KINDS = ("file", "postgres", "s3")


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    """`host:port` of an AWS that is none."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"{host}:{port}"
    server.stop()


@pytest.fixture
def aws(moto: str, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "canary-secret-key",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{moto}",
    }.items():
        monkeypatch.setenv(name, value)
    return moto


def s3_url(host: str) -> str:
    import boto3

    name = f"states-{secrets.token_hex(4)}"
    boto3.client("s3", endpoint_url=f"http://{host}", region_name="us-east-1").create_bucket(Bucket=name)
    return f"s3://{name}/team?region=us-east-1&endpoint={host}&disableSSL=true&s3ForcePathStyle=true"


@pytest.fixture(params=KINDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "file":
        yield f"file://{tmp_path / 'states'}"
    elif request.param == "s3":
        yield s3_url(request.getfixturevalue("aws"))
    else:
        database = request.getfixturevalue("postgres").database()
        yield f"{database.replace('postgresql:', 'postgres:')}&sslmode=disable&table=states"


def test_a_bucket_keeps_lists_and_forgets_objects(url: str) -> None:
    if url.startswith("postgres"):  # the engine makes its table; until then there is simply nothing
        assert (open_bucket(url).read("a"), open_bucket(url).keys("")) == (None, [])
        make_table(url)
    bucket = open_bucket(url)
    assert bucket.read("a/b") is None
    for key in ("a/b", "a/c/d", "a_b", "ab"):
        bucket.write(key, key.encode() + b"\0\xff")
    bucket.write("a/b", b"again")
    assert bucket.read("a/b") == b"again"
    assert bucket.read("a_b") == b"a_b\0\xff"
    assert bucket.keys("a/") == ["a/b", "a/c/d"]
    assert bucket.keys("a_") == ["a_b"]
    bucket.delete("a/b")
    bucket.delete("a/b")
    assert bucket.keys("a/") == ["a/c/d"]


def make_table(url: str) -> None:
    import psycopg

    with psycopg.connect(url.replace("&table=states", ""), autocommit=True) as db:
        db.execute(
            "CREATE TABLE states (key TEXT PRIMARY KEY, data JSON NOT NULL, updated_at TIMESTAMPTZ DEFAULT now())"
        )


def test_a_cluster_lives_and_ends_there_and_the_pulumi_command_finds_it(
    url: str, cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SKYINFRA_BACKEND_URL", url)
    backend = open_backend(load_settings(cluster.home))
    created = cluster.up()
    assert (created.outcome, created.message, created.version) == ("succeeded", "", 1)
    again = cluster.up()
    assert (again.outcome, again.changes.same) == ("succeeded", 4)
    changed = cluster.up(cluster.slot(agent_generation=1))
    assert (changed.outcome, changed.version) == ("succeeded", 2)
    assert backend.stacks() == [cluster.spec.stack]

    env = {**os.environ, **user_env(cluster.home), "PULUMI_STACK": f"organization/skyinfra/{cluster.spec.stack}"}
    said = subprocess.run([find_engine(), "stack", "export"], env=env, cwd=tmp_path, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    assert f"{cluster.spec.stack}-0-0" in said.stdout

    bucket = open_bucket(url)
    bucket.write(backend.key(cluster.spec.stack), b"")  # torn: killed in the middle of a write
    with pytest.raises(StateUnreadable, match="is empty"):
        backend.load(cluster.spec.stack)
    assert cluster.up(cluster.slot(agent_generation=1)).outcome == "succeeded"
    assert len(cluster.machines()) == 1

    assert cluster.run("destroy").outcome == "succeeded"
    assert cluster.left() == []
    assert [key for key in bucket.keys(".pulumi/") if cluster.spec.stack in key] == []


@pytest.mark.slow
def test_the_lock_of_a_killed_engine_is_found_there_and_removed(
    url: str, cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKYINFRA_BACKEND_URL", url)
    cluster.arm("provider.machine.create.made")
    running = cluster.begin("up", cluster.spec)
    cluster.reached("provider.machine.create.made")
    worker = running.worker
    assert worker is not None
    os.killpg(running.engine(), 9)
    os.kill(worker.pid, 9)
    cluster.release()
    running.wait()
    assert open_backend(load_settings(cluster.home)).locks(cluster.spec.stack)
    assert cluster.up().outcome == "succeeded"
    assert open_backend(load_settings(cluster.home)).locks(cluster.spec.stack) == []
    assert cluster.run("destroy").outcome == "succeeded"
    assert cluster.left() == []


def test_the_users_own_secrets_provider_seals_the_stack_and_its_credentials_stay_off_the_disk(
    aws: str, cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    import boto3

    kms = boto3.client("kms", endpoint_url=f"http://{aws}", region_name="us-east-1")
    key = kms.create_key()["KeyMetadata"]["KeyId"]
    monkeypatch.setenv("SKYINFRA_SECRETS_PROVIDER", f"awskms://{key}?region=us-east-1&awssdk=v2")
    created = cluster.up()
    assert (created.outcome, created.message) == ("succeeded", "")
    state = open_backend(load_settings(cluster.home)).load(cluster.spec.stack)
    assert state is not None
    assert state.secrets_provider["type"] == "cloud"
    assert state.secrets_provider["state"]["url"].startswith("awskms://")
    assert cluster.run("preview", cluster.slot(cpus=2.0)).changes.update == 1
    assert cluster.up(cluster.slot(cpus=2.0)).outcome == "succeeded"
    for path in cluster.home.root.rglob("*"):
        if path.is_file():
            assert b"canary-secret-key" not in path.read_bytes(), path
    assert cluster.run("destroy").outcome == "succeeded"
    assert cluster.left() == []
