"""What a user sees, end to end: the command line, the server, the engine, the agent, all real."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import uuid
from http.client import HTTPConnection
from pathlib import Path

import pytest

from skyinfra.testing.world import World, wait_until

pytestmark = [pytest.mark.engine, pytest.mark.timeout(180)]
ROOT = Path(__file__).resolve().parents[2]


def test_hello_runs_and_its_output_is_on_stdout(world: World) -> None:
    done = world.run("launch", "-y", "-c", "hello", str(ROOT / "examples" / "hello.yaml"))
    assert "hello, world, from" in done.stdout
    assert "setup runs once per launch" in done.stdout
    assert [record["name"] for record in world.json("status")] == ["hello"]
    assert world.run("down", "-y", "hello").returncode == 0
    assert world.json("status") == []
    assert not list(world.home.nodes.iterdir())


def test_a_jobs_own_exit_code_is_in_the_last_line_and_in_queue_and_the_command_exits_100(world: World) -> None:
    done = world.run("launch", "-y", "-c", "c", str(world.task("t", "exit 3")), check=100)
    assert "3" in done.stderr.strip().splitlines()[-1]
    (job,) = world.json("queue", "c")
    assert job["status"] == "FAILED"
    assert job["exit_codes"] == [3]
    assert world.run("logs", "c", "1", check=100).returncode == 100


def test_a_failing_setup_is_failed_setup(world: World) -> None:
    world.run("launch", "-y", "-c", "c", str(world.task("t", "echo never", setup="exit 7")), check=100)
    (job,) = world.json("queue", "c")
    assert job["status"] == "FAILED_SETUP"
    assert "never" not in world.run("logs", "c", check=100).stdout


def test_three_names_that_look_alike_on_the_cloud_live_side_by_side(world: World) -> None:
    names = ["a.b", "a_b", "A-B"]
    clients = [
        world.popen("launch", "-y", "-c", name, str(world.task(f"t{n}", f"echo I am {name}")))
        for n, name in enumerate(names)
    ]
    for name, client in zip(names, clients, strict=True):
        out, err = client.communicate(timeout=90)
        assert client.returncode == 0, err
        assert f"I am {name}" in out.decode()
    assert sorted(record["name"] for record in world.json("status")) == sorted(names)
    assert len(list(world.home.nodes.iterdir())) == 3
    world.run("down", "-y", "-a")
    assert world.json("status") == []


def test_a_second_launch_of_a_name_waits_and_runs_its_job_on_the_same_cluster(world: World) -> None:
    world.run("api", "start")
    first = world.popen("launch", "-y", "-c", "c", str(world.task("one", "echo first")))
    second = world.popen("launch", "-y", "-c", "c", str(world.task("two", "echo second")))
    for client in (first, second):
        _, err = client.communicate(timeout=90)
        assert client.returncode == 0, err
    assert sorted(job["job_name"] for job in world.json("queue", "c")) == ["one", "two"]
    assert len(list(world.home.nodes.iterdir())) == 1


def test_down_during_up_ends_the_launch_cancelled_and_its_client_exits_1(world: World) -> None:
    world.run("api", "start")
    hold = world.faults.arm("provider.machine.create.made")
    launch = world.popen("launch", "-y", "-c", "c", str(world.task("t", "echo never")))
    hold.wait_reached(30)
    down = world.popen("down", "-y", "c")
    wait_until(lambda: any(r["name"] == "sky.down" for r in world.json("api", "status")), 10, "down was accepted")
    hold.release()
    _, err = launch.communicate(timeout=60)
    assert launch.returncode == 1, err
    _, err = down.communicate(timeout=60)
    assert down.returncode == 0, err
    states = {r["name"]: r["status"] for r in world.json("api", "status", "-a")}
    assert states == {"sky.launch": "CANCELLED", "sky.down": "SUCCEEDED"}
    assert world.json("status") == []
    assert not list(world.home.nodes.iterdir())


def test_the_same_idempotency_key_with_another_body_is_refused_with_409(world: World) -> None:
    world.run("api", "start")
    key = str(uuid.uuid4())
    body = {"cluster_name": "nope", "purge": False}
    status, first = _post(world, "down", body, key)
    assert status == 202
    assert _post(world, "down", body, key) == (202, first) or _post(world, "down", body, key)[1]["id"] == first["id"]
    status, error = _post(world, "down", {**body, "purge": True}, key)
    assert (status, error["type"]) == (409, "RequestAlreadyExistsError")


def test_down_with_leftovers_exits_1_and_names_them(world: World) -> None:
    world.run("launch", "-y", "-c", "c", str(world.task("t", "echo hi")))
    (node,) = world.home.nodes.iterdir()
    stray = node.with_name(node.name[:-1] + "9")  # a machine of this cluster that no state names …
    stray.mkdir()
    record = json.loads((node / "machine.json").read_text())
    (stray / "machine.json").write_text(json.dumps({**record, "id": stray.name, "incarnation": 9}))
    (stray / "kept").touch()
    subprocess.run(["chattr", "+i", str(stray / "kept")], check=True)  # … and that cannot be deleted
    try:
        done = world.run("down", "-y", "c", check=1)
        assert stray.name in done.stderr
        assert [record["name"] for record in world.json("status")] == ["c"]
    finally:
        subprocess.run(["chattr", "-i", str(stray / "kept")], check=True)
    world.run("down", "-y", "c")
    assert not list(world.home.nodes.iterdir())


def test_api_stop_parks_a_launch_and_the_next_start_resumes_it(world: World) -> None:
    world.run("api", "start")
    hold = world.faults.arm("provider.machine.create.made")
    world.run("launch", "-y", "-c", "c", "--async", str(world.task("t", "echo resumed")))
    hold.wait_reached(30)
    stop = world.popen("api", "stop")
    hold.release()
    assert stop.wait(30) == 0
    wait_until(lambda: not world.processes("worker") and not world.processes("server"), 15, "server and workers ended")
    world.run("api", "start")
    wait_until(lambda: {r["status"] for r in world.json("api", "status", "-a")} == {"SUCCEEDED"}, 60, "launch resumed")
    assert "resumed" in world.run("logs", "c").stdout


def test_a_second_server_on_one_state_folder_is_refused_with_the_owners_pid(world: World) -> None:
    world.run("api", "start")
    done = subprocess.run(
        [sys.executable, "-m", "skyinfra.server"], env=world.env, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 3
    assert str(world.server_pid()) in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name: t\nresorces: {}\nrun: echo\n", [":2:", "resorces", "resources"]),
        ("name: 3\nrun: echo\n", [":1:", "name"]),
        ("name: t\nrun: [a, b]\n", [":2:", "run"]),
        ("name: t\nnum_nodes: two\n", [":2:", "num_nodes"]),
        ("name: t\n  bad: [\n", [":"]),
    ],
)
def test_a_bad_task_file_gets_one_line_with_file_and_line(world: World, text: str, expected: list[str]) -> None:
    path = world.root / "bad.yaml"
    path.write_text(text)
    done = world.run("launch", "-y", str(path), check=1)
    first = done.stderr.strip().splitlines()[0]
    assert "bad.yaml" in first
    for part in expected:
        assert part in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_bad_cluster_name_is_refused_before_anything_is_made(world: World) -> None:
    done = world.run("launch", "-y", "-c", "9lives", str(world.task("t", "echo")), check=1)
    assert "9lives" in done.stderr
    assert "Traceback" not in done.stderr


def test_more_than_the_host_has_is_unavailable_and_says_what_there_is(world: World) -> None:
    done = world.run("launch", "-y", "--cpus", "4096", str(world.task("t", "echo")), check=1)
    assert "4096" in done.stderr
    assert "Traceback" not in done.stderr
    assert not world.home.nodes.exists() or not list(world.home.nodes.iterdir())


def test_the_source_may_be_deleted_while_the_job_runs_and_exec_syncs_the_workdir_only(
    world: World, tmp_path: Path
) -> None:
    workdir = tmp_path / "src"
    workdir.mkdir()
    (workdir / "data.txt").write_text("one")
    (workdir / "skipped.log").write_text("no")
    (workdir / ".skyignore").write_text("*.log\n")
    mount = tmp_path / "mounted.txt"
    mount.write_text("mounted")
    task = world.task(
        "t",
        "sleep 0.5; cat data.txt; ls -a; cat ~/m/mounted.txt",
        workdir=str(workdir),
        file_mounts={"~/m/mounted.txt": str(mount)},
    )
    client = world.popen("launch", "-y", "-c", "c", str(task))
    wait_until(lambda: list(world.home.nodes.glob("*/agent/jobs/1/supervisor*.json")), 60, "the job started")
    for file in workdir.iterdir():
        file.unlink()
    mount.unlink()
    out, err = client.communicate(timeout=60)
    assert client.returncode == 0, err
    assert b"one" in out
    assert b"mounted" in out
    assert b"skipped.log" not in out
    (workdir / "data.txt").write_text("two")
    mount.write_text("changed")
    done = world.run("exec", "c", str(task))
    assert "two" in done.stdout
    assert "mounted" in done.stdout
    assert "changed" not in done.stdout


def test_exec_and_logs_of_an_unknown_cluster_exit_1_with_one_line(world: World) -> None:
    for argv in (["exec", "nope", "echo hi"], ["logs", "nope"]):
        done = world.run(*argv, check=1)
        assert "nope" in done.stderr
        assert "Traceback" not in done.stderr
    assert world.run("down", "-y", "nope").returncode == 0
    assert world.run("queue", "nope").returncode == 0


def test_cancel_ends_the_job_with_everything_it_started(world: World) -> None:
    task = world.task("t", "setsid sleep 997 & (setsid sleep 998 &) ; sleep 999")
    world.run("launch", "-y", "-d", "-c", "c", str(task))
    wait_until(lambda: len(_sleepers(world)) >= 3, 20, "three sleepers")
    world.run("cancel", "-y", "c", "1")
    assert _sleepers(world) == []
    assert world.run("logs", "c", "1", check=103).returncode == 103


def test_ctrl_c_leaves_the_request_running_and_exits_130(world: World) -> None:
    world.run("api", "start")
    client = world.popen("launch", "-y", "-c", "c", str(world.task("t", "sleep 2; echo survived")))
    wait_until(lambda: list(world.home.nodes.glob("*/agent/jobs/1")), 30, "the job was submitted")
    client.send_signal(signal.SIGINT)
    _, err = client.communicate(timeout=20)
    assert client.returncode == 130
    assert b"Traceback" not in err
    assert "survived" in world.run("logs", "c").stdout


def _sleepers(world: World) -> list[int]:
    return [p.pid for p in world.processes() if p.argv[:1] == ("sleep",)]


def _post(world: World, verb: str, body: dict[str, object], key: str) -> tuple[int, dict[str, str]]:
    where = json.loads(world.home.server_json.read_text())
    connection = HTTPConnection(where["host"], where["port"], timeout=20)
    connection.request(
        "POST",
        f"/v1/requests/{verb}",
        json.dumps(body),
        {
            "Authorization": f"Bearer {world.home.token.read_text().strip()}",
            "Idempotency-Key": key,
            "Content-Type": "application/json",
        },
    )
    response = connection.getresponse()
    return response.status, json.loads(response.read())


def test_a_launch_works_where_the_environment_of_skyinfra_is_activated(world: World) -> None:
    """An activated environment has the provider's command on the PATH, and engines look there."""
    env = {**world.env, "PATH": f"{Path(sys.executable).parent}:{world.env['PATH']}"}
    done = world.run("launch", "-y", "-c", "c", str(world.task("t", "echo activated")), env=env)
    assert "activated" in done.stdout
    assert [record["status"] for record in world.json("status")] == ["UP"]
