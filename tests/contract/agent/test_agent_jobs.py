"""Jobs: what they see, what they print, how they end, and what they leave (nothing)."""

import contextlib
import io
import json
import os
import tarfile
import threading

import pytest

SECRET = "canary-5f1c0a7e"


def with_argument(text):
    """pids of processes that have `text` among their arguments."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as f:
            if text.encode() in f.read().split(b"\0"):
                found.append(int(pid))
    return found


def lines_of(log, label):
    """The log's lines without their prefix; every line must have it."""
    out = []
    for line in log.splitlines(keepends=True):
        prefix, _, rest = line.partition(b") ")
        assert prefix.startswith(b"(" + label.encode() + b", pid="), line
        out.append(rest)
    return b"".join(out)


def test_a_job_runs_and_its_row_says_so(agent):
    row, log = agent.finish("echo hello", name="greet", user="ann", metadata={"git": "abc"})
    assert row["state"] == "SUCCEEDED"
    assert row["exit_codes"] == [0]
    assert (row["name"], row["user"], row["metadata"]) == ("greet", "ann", {"git": "abc"})
    assert row["submitted_at"] <= row["started_at"] <= row["ended_at"]
    assert row["resources"] == "1x[CPU:0.5]"
    assert row["log_path"] == "~/sky_logs/{}-greet".format(row["job_id"])
    assert lines_of(log, "greet") == b"hello\n"


def test_exit_codes_and_signals_are_kept(agent):
    assert agent.finish("exit 3")[0]["exit_codes"] == [3]
    killed, _ = agent.finish("kill -KILL $$")
    assert (killed["state"], killed["exit_codes"]) == ("FAILED", [-9])


def test_the_same_key_is_the_same_job_and_runs_once(agent):
    mark = agent.home / "runs"
    ids = {agent.submit(f"echo run >> {mark}", key="only-once") for _ in range(5)}
    agent.wait(ids.pop())
    assert not ids
    assert mark.read_text() == "run\n"


def test_setup_comes_first_and_both_logs_have_it(agent):
    row, log = agent.finish("echo two", setup="echo one; X=1", name="both")
    assert row["state"] == "SUCCEEDED"
    one, two = log.splitlines(keepends=True)
    assert lines_of(one, "setup") == b"one\n"
    assert lines_of(two, "both") == b"two\n"
    folder = agent.home / row["log_path"][2:]
    assert (folder / "setup.log").read_bytes() == one
    assert (folder / "run.log").read_bytes() == log


def test_a_failed_setup_is_the_end(agent):
    row, log = agent.finish("echo never", setup="echo bad; exit 7")
    assert (row["state"], row["exit_codes"]) == ("FAILED_SETUP", [7])
    assert b"never" not in log


def test_a_job_with_setup_only_succeeds(agent):
    row, log = agent.finish(None, setup="echo only")
    assert row["state"] == "SUCCEEDED"
    assert b"only" in log


def test_scripts_keep_their_line_numbers_and_start_in_home_or_workdir(agent):
    _, log = agent.finish("pwd\nnonesuch-command")
    assert lines_of(log, "task").splitlines()[0] == os.fsencode(agent.home)
    assert b"run.sh: line 2: nonesuch-command" in log
    (agent.home / "sky_workdir").mkdir()
    try:
        assert lines_of(agent.finish("pwd")[1], "task") == os.fsencode(agent.home / "sky_workdir") + b"\n"
    finally:
        (agent.home / "sky_workdir").rmdir()


def test_bashrc_is_sourced_quietly(agent):
    rc = agent.home / ".bashrc"
    rc.write_text("echo noise; export FROM_RC=yes\n")
    try:
        assert lines_of(agent.finish("echo $FROM_RC")[1], "task") == b"yes\n"
    finally:
        rc.unlink()


def test_variables_of_setup_and_run_are_skypilots(agent):
    table = [{"slot": 0, "ip": "127.0.0.1", "port": 0}]
    cluster = {"cluster_name": "mine", "cloud": "local", "region": "here", "zone": None}
    assert agent.call("PUT", "/config", {"node_table": table, "cluster": cluster})[0] == 200
    seen = {}
    for part in ("setup", "run"):
        script = {"run": "true", part: f"env -0 > ~/env.{part}"}
        row, _ = agent.finish(user="ann", task_id="sky-2026_mine", demand={"cpus": 1, "gpus": 0.5}, **script)
        raw = (agent.home / f"env.{part}").read_bytes()
        seen[part] = dict(item.split("=", 1) for item in raw.decode().split("\0") if item)
        seen[part, "id"] = str(row["job_id"])
    for brand in ("SKYPILOT_", "SKYINFRA_"):
        for part in ("setup", "run"):
            env = seen[part]
            assert env[brand + "NUM_NODES"] == "1"
            assert env[brand + "USER"] == "ann"
            assert env[brand + "TASK_ID"] == "sky-2026_mine_" + seen[part, "id"]
            assert json.loads(env[brand + "CLUSTER_INFO"]) == cluster
            assert env["PYTHONUNBUFFERED"] == "1"
            assert env["HOME"] == str(agent.home)
            assert env["SKYINFRA_HOME"] == str(agent.root)
        run, setup = seen["run"], seen["setup"]
        assert (run[brand + "NODE_RANK"], run[brand + "NODE_IPS"]) == ("0", "127.0.0.1")
        assert (run[brand + "NUM_GPUS_PER_NODE"], run[brand + "INTERNAL_JOB_ID"]) == ("1", seen["run", "id"])
        assert brand + "SETUP_NODE_RANK" not in run
        assert (setup[brand + "SETUP_NODE_RANK"], setup[brand + "SETUP_NODE_IPS"]) == ("0", "127.0.0.1")
        assert setup[brand + "SETUP_NUM_GPUS_PER_NODE"] == "1"
        assert brand + "NODE_RANK" not in setup
    assert "SKYINFRA_FAULTS" not in seen["run"]


def test_envs_secrets_and_rank_env_reach_the_job_and_no_file_keeps_them(agent):
    ranks = [{"slot": 0, "ip": "127.0.0.1", "env": {"R": "rank"}}]
    row, log = agent.finish(
        "echo $A-$S-$R; cat /proc/$$/environ > /dev/null; ls $SKYINFRA_AGENT_STATE/jobs/$SKYPILOT_INTERNAL_JOB_ID",
        envs={"A": "plain"},
        secrets={"S": SECRET},
        ranks=ranks,
    )
    assert lines_of(log, "task").splitlines()[0] == f"plain-{SECRET}-rank".encode()
    assert b"env.json" not in log  # removed before the job began
    for folder, _, names in os.walk(agent.state):
        for name in names:
            path = os.path.join(folder, name)
            if os.path.isfile(path):
                with open(path, "rb") as f:
                    assert SECRET.encode() not in f.read(), path
    assert not (agent.state / "jobs" / str(row["job_id"])).exists()


def test_a_pending_jobs_secrets_go_with_its_cancel(agent):
    blocker = agent.submit("sleep 60", demand={"cpus": 4})
    waiting = agent.submit("true", secrets={"S": SECRET})
    assert (agent.state / "jobs" / str(waiting) / "env.json").stat().st_mode & 0o777 == 0o600
    status, row = agent.call("POST", f"/jobs/{waiting}/cancel", {})
    assert (status, row["state"], row["started_at"]) == (200, "CANCELLED", None)
    assert not (agent.state / "jobs" / str(waiting)).exists()
    agent.call("POST", f"/jobs/{blocker}/cancel", {})


def test_gpus_are_shared_by_fraction_and_owned_whole(agent):
    hold = 'echo "gpus=$CUDA_VISIBLE_DEVICES"; until [ -e ~/gpu-go ]; do sleep 0.02; done'
    halves = [agent.submit(hold, demand={"cpus": 0.5, "gpus": 0.5}) for _ in range(2)]
    whole = agent.submit(hold, demand={"cpus": 0.5, "gpus": 1})
    late = agent.submit(hold, demand={"cpus": 0.5, "gpus": 2}, metadata={"accelerator": "H100"})
    for job in [*halves, whole]:
        agent.wait(job, "RUNNING")
    assert agent.call("PUT", "/config", {"cpus": 4, "gpus": []})[0] == 200  # names no device: those of the start stay
    assert agent.job(late)["state"] == "PENDING"
    assert agent.job(late)["resources"] == "1x[H100:2]"
    (agent.home / "gpu-go").touch()
    used = [agent.log(job).split(b"gpus=")[1].strip() for job in [*halves, whole, late] if agent.wait(job)]
    assert used == [b"gpu-a", b"gpu-a", b"gpu-b", b"gpu-a,gpu-b"]
    (agent.home / "gpu-go").unlink()
    assert lines_of(agent.finish('echo "[$CUDA_VISIBLE_DEVICES]"')[1], "task") == b"[]\n"


# --- logs -------------------------------------------------------------------------------------------------------------


def test_frames_long_lines_and_odd_bytes_are_intact(agent):
    script = r"""printf 'a\rb\rc\n'; head -c 300000 /dev/zero | tr '\0' x; printf '\nodd \xff\xfe\x00 end\n\nlast'"""
    _, log = agent.finish(script)
    prefix = log[: log.index(b") ") + 2]
    expected = [b"a\rb\rc\n", b"x" * 300000 + b"\n", b"odd \xff\xfe\x00 end\n", b"\n", b"last"]
    assert log == b"".join(prefix + line for line in expected)


def test_a_partial_line_is_there_while_the_job_runs(agent):
    job = agent.submit("printf 'half '; until [ -e ~/go-on ]; do sleep 0.02; done; echo line")
    agent.until(lambda: agent.log(job).endswith(b") half "))
    assert agent.job(job)["state"] == "RUNNING"
    (agent.home / "go-on").touch()
    agent.wait(job)
    assert lines_of(agent.log(job), "task") == b"half line\n"
    (agent.home / "go-on").unlink()


def test_following_a_waiting_job_gives_every_byte_once_and_then_ends(agent):
    blocker = agent.submit("until [ -e ~/unblock ]; do sleep 0.02; done", demand={"cpus": 4})
    job = agent.submit("for i in $(seq 500); do echo line $i; done; sleep 0.1; echo end", demand={"cpus": 4})
    reply = agent.request("GET", f"/jobs/{job}/log?follow=1")
    assert (reply.headers["X-Job-State"], reply.headers["X-Start-Offset"]) == ("PENDING", "0")
    got = []
    thread = threading.Thread(target=lambda: got.append(reply.read()))
    thread.start()
    (agent.home / "unblock").touch()
    thread.join(20)
    assert got == [agent.log(job)]
    assert lines_of(got[0], "task").endswith(b"line 500\nend\n")
    assert agent.job(job)["state"] == "SUCCEEDED"
    assert agent.job(blocker)["state"] == "SUCCEEDED"
    (agent.home / "unblock").unlink()


def test_a_follower_that_leaves_is_forgotten(agent):
    job = agent.submit("sleep 60")
    agent.wait(job, "RUNNING")
    fds = f"/proc/{agent.process.pid}/fd"
    before = len(os.listdir(fds))
    replies = []
    for _ in range(5):
        conn = agent.connect()
        conn.request("GET", f"/v1/jobs/{job}/log?follow=1", headers={"Authorization": "Bearer t0ken-of-this-node"})
        replies.append((conn, conn.getresponse()))
    assert len(os.listdir(fds)) >= before + 5
    for conn, reply in replies:
        reply.close()
        conn.close()
    agent.until(lambda: len(os.listdir(fds)) <= before)
    agent.call("POST", f"/jobs/{job}/cancel", {})


def test_offset_and_tail_start_where_they_say(agent):
    job = agent.submit("for i in 1 2 3 4 5; do echo $i; done; printf 6")
    agent.wait(job)
    whole = agent.log(job)
    assert agent.log(job, "offset=7") == whole[7:]
    assert agent.log(job, "offset=100000") == b""
    for lines in (1, 2, 6, 50):
        assert agent.log(job, f"tail={lines}") == b"".join(whole.splitlines(keepends=True)[-lines:])
    reply = agent.request("GET", f"/jobs/{job}/log?tail=2&follow=1")
    assert whole[int(reply.headers["X-Start-Offset"]) :] == reply.read()


def test_the_log_folder_travels_as_a_tar(agent):
    job = agent.submit("echo run", setup="echo setup", name="packed")
    agent.wait(job)
    reply = agent.request("GET", f"/jobs/{job}/files")
    with tarfile.open(fileobj=io.BytesIO(reply.read())) as tar:
        assert sorted(tar.getnames()) == [f"{job}-packed{end}" for end in ("", "/run.log", "/setup.log")]
        assert tar.extractfile(f"{job}-packed/run.log").read() == agent.log(job)


@pytest.mark.parametrize("name", ["with space", "sla/sh", "..", "ünï", "x" * 300])
def test_odd_names_make_safe_folders(agent, name):
    row, log = agent.finish("echo ok", name=name)
    assert row["state"] == "SUCCEEDED"
    assert (agent.home / row["log_path"][2:]).resolve().parent == (agent.home / "sky_logs").resolve()
    assert log.endswith(b") ok\n")


# --- ends -------------------------------------------------------------------------------------------------------------

FAMILY = """
trap '' TERM
setsid sleep 71 &
(setsid bash -c 'trap "" TERM; sleep 72 & wait' &)
env -i setsid "$(command -v sleep)" 73.UNIQUE &
sleep 74 &
echo $$ > ~/family; wait; sleep 75
"""


def test_cancel_ends_the_whole_tree_and_returns_when_it_has(agent):
    before = agent.processes()
    nameless = f"73.{os.urandom(4).hex().translate(str.maketrans('abcdef', '012345'))}"
    job = agent.submit(FAMILY.replace("73.UNIQUE", nameless))
    agent.until(lambda: (agent.home / "family").exists() and len(agent.processes() - before) >= 5)
    agent.until(lambda: with_argument(nameless))
    status, row = agent.call("POST", f"/jobs/{job}/cancel", {})
    assert (status, row["state"]) == (200, "CANCELLED")
    assert agent.processes() <= before
    assert not with_argument(nameless)  # the one whose environment says nothing
    again = agent.call("POST", f"/jobs/{job}/cancel", {})[1]
    assert again == row
    (agent.home / "family").unlink()


def test_a_job_that_ignores_the_cancel_politely_is_still_cancelled(agent):
    job = agent.submit("trap 'exit 0' TERM; while :; do sleep 0.05; done")
    agent.wait(job, "RUNNING")
    row = agent.call("POST", f"/jobs/{job}/cancel", {})[1]
    assert (row["state"], row["exit_codes"]) == ("CANCELLED", [0])


def test_cancel_during_setup_never_runs_run(agent):
    job = agent.submit("touch ~/ran-anyway", setup="sleep 60")
    agent.wait(job, "SETTING_UP")
    assert agent.call("POST", f"/jobs/{job}/cancel", {})[1]["state"] == "CANCELLED"
    assert not (agent.home / "ran-anyway").exists()


def test_a_finished_job_is_left_alone_by_cancel(agent):
    row, _ = agent.finish("exit 5")
    assert agent.call("POST", "/jobs/{}/cancel".format(row["job_id"]), {}) == (200, row)


def test_cancel_racing_the_end_gives_one_final_state(agent):
    jobs = [agent.submit(f"sleep 0.0{i}") for i in range(8)]
    cancelled = [agent.call("POST", f"/jobs/{job}/cancel", {})[1] for job in jobs]
    assert {row["state"] for row in cancelled} <= {"CANCELLED", "SUCCEEDED"}
    assert [agent.job(job) for job in jobs] == cancelled


def test_what_a_job_leaves_running_is_ended_and_named(agent):
    before = agent.processes()
    # The kernel's own name of the process, which is the one that is reported, changes after its arguments do.
    wait = 'until read -r name < /proc/$!/comm && [ "$name" = sleep ]; do :; done'
    row, log = agent.finish(f"setsid sleep 81 & {wait}; printf 'no newline'")
    assert row["state"] == "SUCCEEDED"
    assert agent.processes() <= before
    first, said = log.splitlines()
    assert first.endswith(b"no newline")
    assert b"1 process" in said
    assert b"sleep (pid " in said


def test_events_tell_each_transition_without_a_gap(agent):
    agent.finish("true", setup="true", key="watched")
    reply = agent.request("GET", "/events?after=0")
    seen, states = [], []
    while not states or states[-1] != "SUCCEEDED":
        event = json.loads(reply.readline())
        seen.append(event["seq"])
        if event["kind"] == "job" and event["body"]["key"] == "watched":
            states.append(event["body"]["state"])
    reply.close()
    assert states == ["PENDING", "SETTING_UP", "RUNNING", "SUCCEEDED"]
    assert seen == list(range(1, len(seen) + 1))


def test_a_reader_of_events_hears_a_heartbeat_at_once_and_new_events_after_it(agent):
    agent.until(lambda: agent.get("/jobs")["jobs"] is not None)
    reply = agent.request("GET", "/events?after=999999")
    beat = json.loads(reply.readline())
    reply.close()
    assert (beat["kind"], beat["body"]["pid"]) == ("heartbeat", agent.process.pid)
    reply = agent.request("GET", "/events?after={}".format(beat["seq"]))
    assert json.loads(reply.readline())["kind"] in ("heartbeat", "idle")
    job = agent.submit("true")
    while True:
        event = json.loads(reply.readline())
        if event["kind"] == "job" and event["body"]["state"] == "SUCCEEDED":
            break
    reply.close()
    assert event["body"]["job_id"] == job
    assert event["seq"] > beat["seq"]


def test_idleness_is_told_once(node):
    node.start()
    row, _ = node.finish("true")
    reply = node.request("GET", "/events?after=0")
    while True:
        event = json.loads(reply.readline())
        if event["kind"] == "idle" and event["body"]["idle_since"] >= row["ended_at"]:
            break
    reply.close()


def test_backfill_passes_a_waiting_head_only_beside_it(agent):
    hold = "until [ -e ~/queue-go ]; do sleep 0.02; done"
    running = agent.submit(hold, demand={"cpus": 2, "gpus": 2})
    agent.wait(running, "RUNNING")
    head = agent.submit("true", demand={"cpus": 1, "gpus": 2})
    beside = agent.submit("true", demand={"cpus": 1, "gpus": 0})
    greedy = agent.submit("true", demand={"cpus": 2, "gpus": 0})
    assert agent.wait(beside)["state"] == "SUCCEEDED"
    assert [agent.job(job)["state"] for job in (head, greedy)] == ["PENDING", "PENDING"]
    (agent.home / "queue-go").touch()
    for job in (running, head, greedy):
        assert agent.wait(job)["state"] == "SUCCEEDED"
    (agent.home / "queue-go").unlink()
