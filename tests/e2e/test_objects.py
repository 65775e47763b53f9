"""Where a task may run, and under which configuration: asked of the real server, as a person and as a program would."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from skyinfra.testing.world import World

LOCAL = "cpus: 4\nmemory_gb: 8\ngpus: {T4: 2}\n"


@pytest.fixture
def sized(world: World) -> World:
    """A host whose size does not depend on the machine under the test."""
    (world.home.root / "local.yaml").write_text(LOCAL)
    return world


def python(world: World, code: str) -> subprocess.CompletedProcess[str]:
    """Run a program that uses the SDK."""
    return subprocess.run(
        [sys.executable, "-c", f"import skyinfra as sky\n{code}"],
        env=world.env,
        cwd=world.root,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_dry_run_shows_the_candidates_and_makes_nothing(sized: World) -> None:
    done = sized.run("launch", "--dryrun", "-c", "c", "--gpus", "T4:2", "--cpus", "2+", "true")
    lines = [line.split() for line in done.stderr.splitlines()]
    assert ["INFRA", "INSTANCE", "vCPUs", "Mem(GB)", "GPUS", "COST", "($)", "CHOSEN"] in lines
    assert ["Local", "(local)", "local", "2", "8", "T4:2", "0.00", "✔"] in lines
    assert "No other cloud is enabled: using the local cloud (this machine)" in done.stderr
    assert sized.json("status") == []
    assert not sized.home.nodes.exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--gpus", "T4:8"], "local: no T4:8; the largest is T4:2 on local at $0.00/h; try num_nodes: 4"),
        (["--cpus", "64+"], "local: no machine with 64+ vCPUs; the nearest has 4"),
        (["--infra", "aws"], "the task asks for aws, which is not enabled; enabled: local"),
    ],
)
def test_why_nothing_fits_is_said_with_what_would(sized: World, options: list[str], says: str) -> None:
    done = sized.run("launch", "--dryrun", "-c", "c", *options, "true", check=1)
    assert says in done.stderr
    assert "hint: " in done.stderr
    assert "Traceback" not in done.stderr


def test_optimize_places_a_chain_and_keeps_what_was_not_sent(sized: World) -> None:
    code = """
with sky.Dag() as dag:
    a = sky.Task(name="a", run="echo a", secrets={"KEY": "canary-1"})
    a.set_resources(sky.Resources(cpus="2+"))
    b = sky.Task(name="b", run="echo b", resources=sky.Resources(accelerators="T4:1"))
dag.add_edge(a, b)
request_id = sky.optimize(dag)
out = sky.get(request_id)
print([(t.name, t.run, t.best_resources.cloud, t.best_resources.accelerators) for t in out.tasks])
print(out.is_chain(), a.best_resources, sorted(out.tasks[0].secrets))
print(sky.get(str(request_id)).tasks[0].run)
b.set_resources(sky.Resources(accelerators="H100:8"))
try:
    sky.get(sky.optimize(dag))
except sky.exceptions.ResourcesUnavailableError as error:
    print(error)
"""
    done = python(sized, code)
    assert done.stderr == ""
    first, second, elsewhere, *refused = done.stdout.splitlines()
    assert first == "[('a', 'echo a', Local, None), ('b', 'echo b', Local, {'T4': 1})]"
    assert second == "True None ['KEY']"
    assert elsewhere == "None", "from another process only the places come back"
    assert refused[0].startswith("Nothing that is allowed fits task 'b'")
    assert b"canary-1" not in b"".join(file.read_bytes() for file in sized.home.root.rglob("*") if file.is_file())


def test_accelerators_of_this_host_are_listed_by_its_server(sized: World) -> None:
    done = sized.run("gpus", "list", "T4", "--infra", "local")
    assert done.stdout.splitlines()[1].split() == [
        "T4",
        "2",
        "Local",
        "local",
        "-",
        "4",
        "8GB",
        "$",
        "0.000",
        "$",
        "0.000",
        "local",
    ]
    code = "from skyinfra.client import sdk\nprint(sky.get(sdk.list_accelerator_counts(clouds='local')))"
    assert python(sized, code).stdout == "{'T4': [2]}\n"


def test_the_async_sdk_hands_in_waits_and_gives_the_value(sized: World) -> None:
    code = """
import asyncio
from skyinfra.client import sdk_async

async def main():
    task = sky.Task(run="true", resources=sky.Resources(cpus="64+"))
    many = await asyncio.gather(*(sdk_async.status(stream_logs=None) for _ in range(20)))
    print(many == [[]] * 20)
    try:
        await sky.sdk_async.launch(task, "c", dryrun=True)
    except sky.exceptions.ResourcesUnavailableError as error:
        print(type(error).__name__)
    print(await sdk_async.launch(sky.Task(run="true"), "c", dryrun=True, stream_logs=None))
    print([row["name"] for row in await sdk_async.api_status(all_status=True)])

asyncio.run(main())
"""
    done = python(sized, code)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "True",
        "ResourcesUnavailableError",
        "(None, None)",
        "['sky.launch', 'sky.launch']",
    ]


def test_configuration_of_each_layer_reaches_the_server(sized: World) -> None:
    config = sized.home.root / "config.yaml"
    config.write_text("allowed_clouds: [gcp]\n")
    done = sized.run("launch", "--dryrun", "-c", "c", "true", check=1)
    assert "error: no cloud is enabled: allowed_clouds names gcp" in done.stderr
    config.write_text("aws:\n  vpc_nam: x\n")
    done = sized.run("launch", "--dryrun", "-c", "c", "true", check=1)
    assert done.stderr == f"error: {config}:2:3: unknown key 'vpc_nam' in aws; did you mean 'vpc_name'?\n"
    config.unlink()
    (sized.root / ".sky.yaml").write_text("aws: {vpc_name: mine}\n")
    sized.run("launch", "--dryrun", "-c", "c", "--config", "allowed_clouds=[gcp]", "true")  # a client's is ignored
    task = sized.root / "t.yaml"
    task.write_text(json.dumps({"run": "true", "config": {"jobs": {"bucket": "s3://b"}}}))
    done = sized.run("launch", "--dryrun", "-c", "c", str(task), check=1)
    assert "jobs.bucket cannot be overridden by a task" in done.stderr


def test_a_configuration_value_is_kept_out_of_what_is_shown(sized: World) -> None:
    sized.run("launch", "--dryrun", "-c", "c", "--config", "docker.run_options=[canary-2]", "true")
    assert "canary-2" not in json.dumps([{**row, "entrypoint": ""} for row in sized.json("api", "status", "-a")])


def test_many_mistakes_of_a_file_are_named_in_one_go(world: World) -> None:
    task = world.root / "t.yaml"
    task.write_text("num_noeds: 2\nresources:\n  acelerators: T4\n  use_spot: often\nrun: [a]\n")
    done = world.run("launch", "--dryrun", "-c", "c", str(task), check=1)
    assert done.stderr.splitlines() == [
        f"error: {task}:1:1: unknown key 'num_noeds' in task; did you mean 'num_nodes'?",
        f"{task}:3:3: unknown key 'acelerators' in resources; did you mean 'accelerators'?",
        f"{task}:4:13: resources.use_spot: expected true or false, found text ('often')",
        f"{task}:5:6: run: expected text, found a list",
    ]
    assert world.server_pid() is None, "a file that cannot be read needs no server"


def hostile(folder: Path) -> dict[str, bytes]:
    bomb = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    bomb += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    return {
        "bomb": "\n".join(bomb).encode(),
        "deep": b"run: " + b"[" * 100_000,
        "latin": "run: caf\xe9\n".encode("latin-1"),
        "utf32": "run: x\n".encode("utf-32"),
        "nul": b"run: x\0y\n",
        "tag": b"run: !!python/object/apply:os.system ['true']\n",
    }


@pytest.mark.parametrize("name", ["huge", *hostile(Path())])
def test_a_hostile_file_is_refused_with_one_line_and_exit_code_1(world: World, name: str) -> None:
    file = world.root / f"{name}.yaml"
    if name == "huge":
        with open(file, "wb") as out:
            out.truncate(100 << 20)
    else:
        file.write_bytes(hostile(world.root)[name])
    done = world.run("launch", "--dryrun", "-c", "c", str(file), check=1, timeout_s=20)
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(f"error: {file}")
