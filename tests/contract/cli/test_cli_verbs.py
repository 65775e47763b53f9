"""Commands that change something: what they send, what they ask, how they exit."""

from __future__ import annotations

import io
import json
import os
import signal
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Sky = Callable[..., Any]


@pytest.fixture
def running(server: Any, make: Any) -> Any:
    """A server on which the next launch's job succeeds and logs a line."""
    server.jobs = {"c": [make.job(1)]}
    server.logs = {("c", 1): b"(t, pid=7) hello\n"}
    server.events = [
        {"at": 0, "kind": "log", "text": "Launching c on Local."},
        {"at": 0, "kind": "resource", "urn": "u1", "type": "skyinfra:local:Machine", "name": "c-0", "op": "create",
         "state": "began", "text": ""},
        {"at": 1, "kind": "resource", "urn": "u1", "type": "skyinfra:local:Machine", "name": "c-0", "op": "create",
         "state": "done", "text": ""},
    ]  # fmt: skip
    return server


def body_of(server: Any, verb: str) -> dict[str, Any]:
    return next(r.body for r in server.requests.values() if r.verb == verb)


def test_launch_shows_progress_and_markers_on_stderr_and_only_the_log_on_stdout(running: Any, sky: Sky) -> None:
    screen = sky("launch", "-y", "-c", "c", "echo hello")
    assert screen.stdout == "(t, pid=7) hello\n"
    assert screen.stderr.splitlines() == [
        "Launching c on Local.",
        "… machine c-0 making",
        "✓ machine c-0 made (0s)",
        "Job started. Streaming logs...",
        "Job finished (status: SUCCEEDED).",
        "Job ID: 1, cluster: c",
        "  its log:   skyinfra logs c 1",
        "  all jobs:  skyinfra queue c",
        "  stop:      skyinfra stop c",
        "  remove:    skyinfra down c",
    ]
    assert screen.code == 0


def test_a_failed_jobs_own_code_is_in_the_last_line_and_launch_exits_100(running: Any, sky: Sky, make: Any) -> None:
    running.jobs["c"] = [make.job(1, "FAILED", exit_codes=[3])]
    screen = sky("launch", "-y", "-c", "c", "exit 3")
    assert screen.stderr.splitlines()[-1] == "Job 1 FAILED (exit code 3)."
    assert screen.code == 100


def test_launch_sends_command_options_and_environment(running: Any, sky: Sky, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COPIED", "from here")
    sky("launch", "-y", "-d", "-c", "c", "-n", "t", "--infra", "local", "--cpus", "2+", "--env", "A=1", "--env",
        "COPIED", "--secret", "S=hush", "python", "train.py")  # fmt: skip
    body = body_of(running, "launch")
    assert body["cluster_name"] == "c"
    assert body["task"]["name"] == "t"
    assert body["task"]["run"] == "python train.py"
    assert body["task"]["envs"] == {"A": "1", "COPIED": "from here"}
    assert body["task"]["secrets"] == {"S": "hush"}
    assert body["task"]["resources"]["infra"] == "local"
    assert body["task"]["resources"]["cpus"] == "2+"


def test_options_override_the_file_and_none_clears_a_value(running: Any, sky: Sky, tmp_path: Path) -> None:
    path = tmp_path / "task.yaml"
    task = {"name": "t", "resources": {"infra": "local", "cpus": 4, "memory": 8}, "envs": {"A": "0"}, "run": "echo"}
    path.write_text(json.dumps(task))
    assert sky("launch", "-y", "-d", "-c", "c", "--memory", "none", "--cpus", "2", "--env", "A=1", str(path)).code == 0
    sent = body_of(running, "launch")["task"]
    assert sent["resources"]["cpus"] in (2, "2")
    assert "memory" not in sent["resources"]
    assert sent["envs"] == {"A": "1"}


def test_values_given_on_the_command_line_are_not_in_the_entrypoint(
    running: Any, sky: Sky, monkeypatch: pytest.MonkeyPatch
) -> None:
    argv = ["launch", "-y", "-d", "-c", "c", "--secret", "S=hush", "--env=E=loud", "true"]
    monkeypatch.setattr("sys.argv", ["/usr/bin/skyinfra", *argv])
    sky(*argv)
    entrypoint = body_of(running, "launch")["entrypoint"]
    assert entrypoint == "skyinfra launch -y -d -c c --secret S=… --env=E=… true"


def test_a_file_that_is_no_task_is_one_line_with_file_and_line_and_a_suggestion(
    server: Any, sky: Sky, tmp_path: Path
) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("name: t\nresorces: {}\nrun: echo\n")
    screen = sky("launch", "-y", str(path))
    assert screen.code == 1
    assert screen.stdout == ""
    (line,) = screen.stderr.splitlines()
    assert line.startswith("error: ")
    for part in ("bad.yaml:2:", "resorces", "resources"):
        assert part in line
    assert server.seen == []


def test_a_missing_yaml_file_is_refused_without_a_terminal(server: Any, sky: Sky) -> None:
    screen = sky("launch", "-y", "nope.yaml")
    assert screen.code == 1
    assert screen.stderr.splitlines()[0] == "error: nope.yaml: no such file"


def test_a_bad_cluster_name_is_refused_before_anything_is_sent(server: Any, sky: Sky) -> None:
    screen = sky("launch", "-y", "-c", "9lives", "echo")
    assert screen.code == 1
    assert "9lives" in screen.stderr
    assert server.seen == []


def test_async_launch_returns_with_the_requests_id(running: Any, sky: Sky) -> None:
    screen = sky("launch", "-y", "--async", "-c", "c", "true")
    (request_id,) = running.requests
    assert screen.stderr == f"Request {request_id} was handed in; follow it with `skyinfra api logs {request_id}`.\n"
    assert (screen.stdout, screen.code) == ("", 0)


def test_exec_of_an_unknown_cluster_exits_1_with_one_line(server: Any, sky: Sky, make: Any) -> None:
    server.error = make.no_cluster("nope")
    screen = sky("exec", "nope", "echo hi")
    assert (screen.stdout, screen.stderr, screen.code) == ("", "error: Cluster nope does not exist.\n", 1)


def test_a_server_error_brings_its_hint_to_the_terminal(server: Any, sky: Sky) -> None:
    server.error = {"type": "ResourcesUnavailableError", "message": "no capacity for 8xH100", "args": [],
                    "attributes": {}, "hint": "allow more regions"}  # fmt: skip
    screen = sky("launch", "-y", "-c", "c", "true")
    assert screen.stderr.splitlines()[-2:] == ["error: no capacity for 8xH100", "hint: allow more regions"]
    assert screen.code == 1


def test_a_cancelled_launch_exits_1(server: Any, sky: Sky) -> None:
    server.error = {
        "type": "RequestCancelled",
        "message": "request was cancelled by down",
        "args": [],
        "attributes": {},
    }
    screen = sky("launch", "-y", "-c", "c", "true")
    assert (screen.stderr, screen.code) == ("error: request was cancelled by down\n", 1)


def test_down_removes_what_exists_and_only_mentions_what_does_not(server: Any, sky: Sky, make: Any) -> None:
    server.clusters = [make.cluster("c")]
    screen = sky("down", "-y", "c", "nope")
    assert (screen.stdout, screen.code) == ("", 0)
    assert screen.stderr == "Cluster(s) not found: nope.\n"
    assert [r.body["cluster_name"] for r in server.requests.values() if r.verb == "down"] == ["c"]


def test_down_of_nothing_exits_0(server: Any, sky: Sky) -> None:
    assert (sky("down", "-y", "nope").code, server.verbs()) == (0, ["status"])


def test_down_without_a_terminal_and_without_y_is_refused_by_name(server: Any, sky: Sky, make: Any) -> None:
    server.clusters = [make.cluster("c")]
    screen = sky("down", "c")
    assert screen.code == 1
    assert screen.stderr == ("error: Removing 1 cluster: c: not done without a confirmation\nhint: add -y to confirm\n")
    assert server.verbs() == ["status"]


def test_a_failed_down_exits_1_and_the_other_clusters_are_still_waited_for(server: Any, sky: Sky, make: Any) -> None:
    server.clusters = [make.cluster("a"), make.cluster("b")]
    answer = server.answer

    def fail_a(request: Any) -> None:
        answer(request)
        if request.verb == "down" and request.body["cluster_name"] == "a":
            request.status = "FAILED"
            request.error = {"type": "RuntimeError", "message": "left: i-1", "args": [], "attributes": {}}

    server.answer = fail_a
    screen = sky("down", "-y", "-a")
    assert screen.stderr == "error: left: i-1\n"
    assert screen.code == 1


def test_a_command_is_called_as_skypilot_calls_it(running: Any, sky: Sky) -> None:
    sky("exec", "-d", "c", "nvidia-smi")
    assert body_of(running, "exec")["task"]["name"] == "sky-cmd"


def test_cancel_sends_what_was_meant_and_an_unknown_cluster_exits_2(server: Any, sky: Sky, make: Any) -> None:
    assert sky("cancel", "-y", "c", "1", "2").code == 0
    assert body_of(server, "cancel")["job_ids"] == [1, 2]
    server.error = make.no_cluster("nope")
    assert sky("cancel", "nope", "-a", "-y").code == 2


def test_logs_exit_with_the_jobs_outcome(server: Any, sky: Sky, make: Any) -> None:
    server.jobs = {"c": [make.job(1), make.job(2, "CANCELLED"), make.job(3, "FAILED_SETUP", exit_codes=[7])]}
    server.logs = {("c", 1): b"one\n"}
    screen = sky("logs", "c", "1")
    assert (screen.stdout, screen.code) == ("one\n", 0)
    assert sky("logs", "c", "2").code == 103
    screen = sky("logs", "c", "3")
    assert (screen.stderr.splitlines()[-1], screen.code) == ("Job 3 FAILED_SETUP (setup: exit code 7).", 100)
    screen = sky("logs", "c", "9")
    assert (screen.code, screen.stderr.splitlines()[0]) == (102, "error: job 9 does not exist on cluster c")


def test_logs_of_an_unknown_cluster_exit_1(server: Any, sky: Sky) -> None:
    screen = sky("logs", "nope")
    assert (screen.stdout, screen.stderr, screen.code) == ("", "error: Cluster nope does not exist.\n", 1)


def test_logs_status_says_101_while_the_job_runs(server: Any, sky: Sky, make: Any) -> None:
    server.jobs = {"c": [make.job(1, "RUNNING")]}
    screen = sky("logs", "c", "1", "--status")
    assert (screen.stdout, screen.code) == ("Job 1: RUNNING\n", 101)


def test_logs_without_follow_of_an_unfinished_job_exit_0(server: Any, sky: Sky, make: Any) -> None:
    server.jobs = {"c": [make.job(1, "RUNNING")]}
    server.logs = {("c", 1): b"so far\n"}
    screen = sky("logs", "c", "1", "--no-follow")
    assert (screen.stdout, screen.code) == ("so far\n", 0)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTSTP, 146)])
def test_a_wait_that_is_left_says_how_to_rejoin_it(
    server: Any, sky: Sky, make: Any, number: signal.Signals, code: int
) -> None:
    over = threading.Event()

    def leave() -> None:
        os.kill(os.getpid(), number)  # as the terminal does to the command that waits
        over.wait(20)

    server.clusters = [make.cluster("c")]
    server.on_stream = leave
    screen = sky("down", "-y", "c")
    over.set()
    request_id = next(r.id for r in server.requests.values() if r.verb == "down")
    assert screen.code == code
    assert screen.stderr == f"\nthe request goes on; rejoin it with `skyinfra api logs {request_id}`\n"


def test_a_log_that_is_left_says_how_to_see_it_again(server: Any, sky: Sky, make: Any) -> None:
    over = threading.Event()

    def leave() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        over.wait(20)

    server.jobs = {"c": [make.job(1, "RUNNING")]}
    server.on_stream = leave
    screen = sky("logs", "c", "1")
    over.set()
    assert (screen.code, screen.stderr) == (130, "\nthe job goes on; see its log with `skyinfra logs c 1`\n")


def test_sync_down_writes_to_sky_logs_and_names_the_folder(server: Any, sky: Sky, make: Any, tmp_path: Path) -> None:
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        entry = tarfile.TarInfo("run.log")
        entry.size = 3
        archive.addfile(entry, io.BytesIO(b"hi\n"))
    server.jobs, server.files = {"c": [make.job(1)]}, tar.getvalue()
    screen = sky("logs", "c", "-s")
    folder = tmp_path / "sky_logs" / "c" / "1-t"
    assert (screen.code, screen.stderr) == (0, f"Job 1 logs: {folder}\n")
    assert (folder / "run.log").read_text() == "hi\n"
    assert sky("logs", "c", "-s", "9").code == 102


def test_workdir_and_local_mounts_are_sent_once_and_named_by_destination(
    running: Any, sky: Sky, tmp_path: Path
) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a").write_text("a")
    (tmp_path / "m.txt").write_text("m")
    path = tmp_path / "task.yaml"
    task = {"workdir": str(tmp_path / "src"), "file_mounts": {"~/m.txt": str(tmp_path / "m.txt")}, "run": "ls",
            "resources": {"infra": "local"}}  # fmt: skip
    path.write_text(json.dumps(task))
    assert sky("launch", "-y", "-d", "-c", "c", str(path)).code == 0
    blobs = body_of(running, "launch")["blobs"]
    assert {target: blob["kind"] for target, blob in blobs.items()} == {"~/sky_workdir": "dir", "~/m.txt": "file"}
    assert {blob["digest"] for blob in blobs.values()} == set(running.blobs)
    assert sky("exec", "-d", "c", str(path)).code == 0
    assert list(body_of(running, "exec")["blobs"]) == ["~/sky_workdir"]
    assert sum(method == "PUT" for method, _, _ in running.seen) == 2
    assert sum((method, path) == ("POST", "/v1/blobs") for method, path, _ in running.seen) == 2
    assert set(running.chunks.values()) == {b"a", b"m"}
