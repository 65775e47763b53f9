"""Deaths of agent, zygote and supervisor: jobs go on, none runs twice, nothing is left, nothing is stuck."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from skyinfra.runtime import procs

SUBMIT = ["agent.submit.before", "agent.submit.recorded"]
SPAWN = ["agent.spawn.before", "agent.spawn.made", "agent.spawn.recorded"]
FINISH = ["agent.finish.before", "agent.finish.recorded"]
COUNT = "echo run >> ~/runs"


def runs(node):
    path = node.home / "runs"
    return path.read_text().count("run\n") if path.exists() else 0


def zygote_of(node):
    [pid] = [p.pid for p in procs.snapshot().values() if p.ppid == node.process.pid]
    return pid


def submit_unanswered(node, key, run, **fields):
    """Submit from a thread: the answer may never come."""

    def send():
        try:
            node.call("POST", "/jobs", {"key": key, "run": run, **fields})
        except OSError:
            pass  # the agent was killed meanwhile: the point of the test
        except Exception as exc:
            if type(exc).__module__ != "http.client":
                raise

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("death", [signal.SIGKILL, signal.SIGTERM])
def test_a_running_job_does_not_notice_the_agents_death(node, death):
    node.start()
    script = "echo pid $$; until [ -e ~/enough ]; do echo tick; sleep 0.02; done; echo done"
    job = node.submit(script, key="long")
    before = node.wait(job, "RUNNING")
    node.crash(death)
    size = (node.home / before["log_path"][2:] / "run.log").stat().st_size
    node.until(lambda: (node.home / before["log_path"][2:] / "run.log").stat().st_size > size)
    node.start(generation=2)
    assert node.job(job) == before
    assert node.submit(script, key="long") == job
    (node.home / "enough").touch()
    row = node.wait(job)
    assert (row["state"], row["pid"]) == ("SUCCEEDED", before["pid"])
    log = node.log(job)
    first, *ticks, last = [line.split(b") ", 1)[1] for line in log.splitlines()]
    assert (first, set(ticks), last) == (b"pid " + log.split(b"pid=")[1].split(b")")[0], {b"tick"}, b"done")
    assert node.get("/health")["generation"] == 2


def test_a_job_that_ended_while_the_agent_was_dead_is_known_afterwards(node):
    node.start()
    job = node.submit("until [ -e ~/end ]; do sleep 0.02; done; exit 6")
    row = node.wait(job, "RUNNING")
    waiting = node.submit(COUNT, demand={"cpus": 4})
    node.crash()
    (node.home / "end").touch()
    node.until(lambda: procs.read_stat(row["pid"]) is None)
    node.start(generation=2)
    assert node.wait(job)["exit_codes"] == [6]
    assert node.wait(waiting)["state"] == "SUCCEEDED"
    assert runs(node) == 1


@pytest.mark.parametrize("name", [*SUBMIT, *SPAWN, *FINISH])
def test_an_agent_killed_at_a_boundary_runs_the_job_exactly_once(node, name):
    node.start(faults=True)
    node.arm(name)
    thread = submit_unanswered(node, "the-key", COUNT, secrets={"S": "canary-in-env"})
    assert node.reached(name) == node.process.pid
    node.crash()
    thread.join(10)
    node.start(generation=2)
    job = node.submit(COUNT, key="the-key", secrets={"S": "canary-in-env"})
    row = node.wait(job)
    assert (row["state"], row["exit_codes"]) == ("SUCCEEDED", [0])
    assert runs(node) == 1
    assert [r["key"] for r in node.get("/jobs")["jobs"]] == ["the-key"]
    node.until(lambda: os.listdir(node.state / "jobs") == [])


@pytest.mark.parametrize("name", ["agent.cancel.before", "agent.cancel.recorded", "agent.cancel.made"])
def test_a_cancel_survives_the_agents_death_once_it_is_recorded(node, name):
    node.start(faults=True)
    job = node.submit("sleep 60")
    node.wait(job, "RUNNING")
    node.arm(name)

    def cancel():
        try:
            node.call("POST", f"/jobs/{job}/cancel", {})
        except Exception as exc:
            if not isinstance(exc, OSError) and type(exc).__module__ != "http.client":
                raise

    thread = threading.Thread(target=cancel, daemon=True)
    thread.start()
    node.reached(name)
    node.crash()
    thread.join(10)
    node.start(generation=2)
    if name == "agent.cancel.before":
        assert node.job(job)["state"] == "RUNNING"
        node.call("POST", f"/jobs/{job}/cancel", {})
    assert node.wait(job)["state"] == "CANCELLED"


@pytest.mark.parametrize(
    "name", ["supervisor.started", "supervisor.setup.done", "supervisor.run.started", "supervisor.exit.before"]
)
def test_a_killed_supervisor_fails_its_job_and_leaves_no_process(node, name):
    node.start(faults=True)
    idle = node.processes()
    node.arm(name)
    job = node.submit(COUNT + "; setsid sleep 60 & wait" if name == "supervisor.run.started" else COUNT, setup="true")
    os.kill(node.reached(name), signal.SIGKILL)
    row = node.wait(job)
    assert row["state"] == "FAILED_DRIVER"
    assert "supervisor" in row["reason"]
    node.until(lambda: node.processes() <= idle)
    assert runs(node) <= 1
    assert node.finish("true")[0]["state"] == "SUCCEEDED"


def test_a_supervisor_killed_before_its_record_costs_nothing(node):
    node.start(faults=True)
    node.arm("supervisor.claim.before")
    job = node.submit(COUNT)
    os.kill(node.reached("supervisor.claim.before"), signal.SIGKILL)
    assert node.wait(job)["state"] == "SUCCEEDED"
    assert runs(node) == 1


def test_two_supervisors_of_one_attempt_run_it_once(node):
    node.start(faults=True)
    node.arm("supervisor.claim.before")
    job = node.submit(COUNT)
    pid = node.reached("supervisor.claim.before")
    node.crash()
    node.start(generation=2)  # claims the attempt that the held supervisor is about to claim, and begins another
    assert node.wait(job)["state"] == "SUCCEEDED"
    next(node.faults.glob("*.reached.*")).unlink()
    node.until(lambda: procs.read_stat(pid) is None)
    assert runs(node) == 1
    assert node.job(job)["state"] == "SUCCEEDED"


def test_a_hanging_supervisor_does_not_stop_a_cancel(node):
    node.start()
    job = node.submit("sleep 60 & setsid sleep 60 & wait")
    os.kill(node.wait(job, "RUNNING")["pid"], signal.SIGSTOP)
    row = node.call("POST", f"/jobs/{job}/cancel", {})[1]
    assert row["state"] == "CANCELLED"
    node.until(lambda: len(node.processes()) == 2)


def test_a_supervisor_killed_after_its_record_has_already_won(node):
    node.start(faults=True)
    node.arm("supervisor.exit.recorded")
    job = node.submit("exit 9")
    os.kill(node.reached("supervisor.exit.recorded"), signal.SIGKILL)
    assert node.wait(job)["exit_codes"] == [9]


def test_even_a_nameless_process_of_a_killed_supervisor_is_ended(node):
    node.start()
    idle = node.processes()
    job = node.submit('env -i setsid "$(command -v bash)" -c \'echo $$ > "$0"; exec sleep 60\' ~/nameless & sleep 60')
    node.until(lambda: (node.home / "nameless").exists() and (node.home / "nameless").read_text().endswith("\n"))
    pid = int((node.home / "nameless").read_text())
    os.kill(node.job(job)["pid"], signal.SIGKILL)
    assert node.wait(job)["state"] == "FAILED_DRIVER"
    node.until(lambda: procs.read_stat(pid) is None)
    node.until(lambda: node.processes() <= idle)


def test_supervisor_and_agent_killed_together(node):
    node.start()
    job = node.submit("sleep 60")
    pid = node.wait(job, "RUNNING")["pid"]
    node.crash()
    os.kill(pid, signal.SIGKILL)
    node.start(generation=2)
    row = node.wait(job)
    assert (row["state"], str(pid) in row["reason"]) == ("FAILED_DRIVER", True)
    node.until(lambda: len(node.processes()) == 2)


def test_a_dead_zygote_is_replaced_and_jobs_go_on(node):
    node.start()
    job = node.submit("until [ -e ~/on ]; do sleep 0.02; done")
    node.wait(job, "RUNNING")
    old = zygote_of(node)
    os.kill(old, signal.SIGKILL)
    assert node.finish(COUNT)[0]["state"] == "SUCCEEDED"
    assert runs(node) == 1
    assert zygote_of(node) != old
    (node.home / "on").touch()
    assert node.wait(job)["state"] == "SUCCEEDED"


@pytest.mark.parametrize("name", ["zygote.fork.before", "zygote.fork.made"])
def test_a_zygote_killed_at_a_boundary_runs_the_job_exactly_once(node, name):
    node.start(faults=True)
    node.arm(name)
    job = node.submit(COUNT)
    os.kill(node.reached(name), signal.SIGKILL)
    assert node.wait(job)["state"] == "SUCCEEDED"
    assert runs(node) == 1


@pytest.mark.parametrize("name", ["agent.kill.before", "agent.kill.made"])
def test_a_killed_kill_can_be_done_again(node, name):
    node.start()
    node.wait(node.submit("sleep 60"), "RUNNING")
    node.arm(name)
    argv = [node.python, str(node.pyz), "kill", "--state", str(node.state), "--grace", "5"]
    with subprocess.Popen(argv, env=dict(node.env, SKYINFRA_FAULTS=str(node.faults))) as first:
        assert node.reached(name) == first.pid
        first.kill()
    code, told = node.kill()
    assert (code, told["left"]) == (0, [])
    assert not node.processes()


def test_a_zygote_that_dies_with_an_order_in_hand_costs_nothing(node):
    node.start()
    old = zygote_of(node)
    os.kill(old, signal.SIGSTOP)
    jobs = [node.submit(COUNT) for _ in range(6)]
    assert {node.job(job)["state"] for job in jobs} == {"PENDING"}
    os.kill(old, signal.SIGKILL)
    assert {node.wait(job)["state"] for job in jobs} == {"SUCCEEDED"}
    assert runs(node) == 6


def test_a_supervisor_whose_attempt_was_withdrawn_refuses_to_run(node):
    node.start(faults=True)
    old = zygote_of(node)
    os.kill(old, signal.SIGSTOP)
    job = node.submit(COUNT)
    node.crash()
    node.start(generation=2)  # settles the attempt, although the old zygote still holds its order
    assert node.wait(job)["state"] == "SUCCEEDED"
    os.kill(old, signal.SIGCONT)  # it now reads the order, forks, and its supervisor finds the attempt taken
    node.until(lambda: procs.read_stat(old) is None)
    assert runs(node) == 1
    assert len(node.get("/jobs")["jobs"]) == 1


def test_events_go_on_with_the_next_number_after_a_death(node):
    node.start()
    node.finish("true")
    last = json.loads(node.request("GET", "/events?after=999999").readline())["seq"]
    node.crash()
    node.start(generation=2)
    node.finish("true")
    reply = node.request("GET", f"/events?after={last}")
    assert json.loads(reply.readline())["seq"] == last + 1
    reply.close()


def test_drain_survives_a_death_and_ends_with_the_next_boot(node):
    node.start()
    node.call("POST", "/drain", {"reason": "stop"})
    node.crash()
    node.start(generation=2)
    assert node.get("/health")["state"] == "draining"
    node.kill()
    node.start(boot=2)
    assert node.get("/health")["state"] == "ready"


def test_kill_ends_everything_and_the_next_boot_says_why(node):
    node.start()
    running = node.submit("trap '' TERM; setsid sleep 60 & sleep 60 & wait", demand={"cpus": 4})
    waiting = node.submit(COUNT)
    node.wait(running, "RUNNING")
    code, told = node.kill(grace=7.0)
    assert (code, told["left"]) == (0, [])
    assert told["killed"] >= 2
    assert not node.processes()
    assert node.kill()[1] == {"killed": 0, "left": []}
    node.start(boot=2)
    for job in (running, waiting):
        row = node.job(job)
        assert (row["state"], "stopped" in row["reason"]) == ("FAILED_DRIVER", True), row
    assert runs(node) == 0
    assert node.finish(COUNT)[0]["state"] == "SUCCEEDED"


def test_a_job_that_was_about_to_start_when_the_node_stopped_does_not_start_with_the_next_boot(node):
    node.start(faults=True)
    node.arm("supervisor.claim.before")
    job = node.submit(COUNT)
    node.reached("supervisor.claim.before")
    node.kill(grace=0.5)
    node.start(boot=2)
    assert node.wait(job)["state"] == "FAILED_DRIVER"
    assert runs(node) == 0


def test_kill_without_patience_still_leaves_nothing(node):
    node.start()
    job = node.submit("trap '' TERM; setsid sleep 60 & while :; do sleep 0.05; done")
    node.wait(job, "RUNNING")
    os.kill(node.process.pid, signal.SIGSTOP)
    code, told = node.kill(grace=0.1)
    assert (code, told["left"]) == (0, [])
    assert not node.processes()
    node.start(generation=2)
    assert node.wait(job)["state"] == "FAILED_DRIVER"


def test_shutdown_over_http_leaves_jobs_or_ends_them_as_asked(node):
    node.start()
    job = node.submit("sleep 60")
    node.wait(job, "RUNNING")
    assert node.call("POST", "/shutdown", {"kill_jobs": False})[0] == 200
    assert node.process.wait(10) == 0
    node.start(generation=2)
    assert node.job(job)["state"] == "RUNNING"
    assert node.call("POST", "/shutdown", {"kill_jobs": True})[0] == 200
    assert node.process.wait(10) == 0
    node.until(lambda: not node.processes())
    node.start(generation=3)
    assert node.job(job)["state"] == "FAILED_DRIVER"


def test_the_record_is_there_before_the_socket(node):
    node.start(faults=True)
    node.crash()
    node.arm("agent.start.recorded")
    os.unlink(node.socket)
    with open(node.root / "agent.log", "a") as log:
        env = dict(node.env, SKYINFRA_FAULTS=str(node.faults))
        node.process = subprocess.Popen(node.argv(generation=2), env=env, stderr=log, start_new_session=True)
    pid = node.reached("agent.start.recorded")
    record = json.loads((node.state / "agent.json").read_text())
    assert (record["pid"], record["generation"], record["socket"]) == (pid, 2, node.socket)
    assert record["start_ticks"] == procs.start_ticks(pid)
    assert not Path(node.socket).exists()
    next(node.faults.glob("*.reached.*")).unlink()
    node.wait_ready()


def old_pythons():
    """Version and how to start it: every one of this machine, and always this one, saying that it is another."""
    for version in ("2.7", "3.6", "3.7"):
        for path in sorted(Path("~/.pyenv/versions").expanduser().glob(f"{version}.*/bin/python"))[:1]:
            yield version, [str(path)]
    pretend = (
        "import runpy, sys; sys.version_info = (3, 7, 9); del sys.argv[0]; runpy.run_path(sys.argv[0], {}, '__main__')"
    )
    yield "3.7", [sys.executable, "-c", pretend]


def test_an_old_python_gets_one_clear_line(node):
    own = node.argv()
    program = own[next(n for n, word in enumerate(own) if word.endswith(".pyz")) :]
    for version, python in old_pythons():
        done = subprocess.run([*python, *program], env=node.env, capture_output=True, text=True, timeout=30)
        assert done.returncode == 2
        assert done.stderr == f"error: the skyinfra agent needs Python 3.8 or newer, this is {version}\n"


def fill(path):
    """Write until there is no room."""
    with open(path, "wb", buffering=0) as f, pytest.raises(OSError, match="No space"):  # noqa: PT012 - one loop
        while True:
            f.write(b"x" * 4096)


def test_a_full_disk_refuses_by_name_and_heals(node):
    small = node.root / "agent"
    node.state.joinpath("token").unlink()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k,mode=700", "tmpfs", small], capture_output=True)
    if done.returncode != 0:
        (node.state / "token").write_text("t0ken-of-this-node")
        pytest.skip("mounting a small file system needs root")
    try:
        (small / "token").write_text("t0ken-of-this-node")
        node.start()
        running = node.submit("until [ -e ~/end ]; do sleep 0.02; done; exit 4")
        node.wait(running, "RUNNING")
        fill(small / "ballast")
        status, error = node.call("POST", "/jobs", {"key": "full", "run": "true" * 5000})
        assert (status, error["type"]) == (507, "no_space")
        status, error = node.call("PUT", "/files/" + "0" * 64, b"y" * 100000)
        assert (status, error["type"]) == (507, "no_space")
        (node.home / "end").touch()  # its outcome finds no room now
        held = time.monotonic() + 0.5
        node.until(lambda: time.monotonic() > held)
        assert node.get("/health")["state"] == "ready"
        (small / "ballast").unlink()
        assert node.wait(running)["exit_codes"] == [4]
        assert node.finish("true", key="full")[0]["state"] == "SUCCEEDED"
    finally:
        node.kill(grace=1.0)
        subprocess.run(["umount", small], check=True)
        (node.state / "token").write_text("t0ken-of-this-node")
