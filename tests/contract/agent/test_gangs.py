"""A job on several nodes: three real agents on three loopback addresses, linked as a server would link them."""

import contextlib
import http.client
import os
import re
import signal
import socket
import ssl
import threading
import time
from pathlib import Path

import pytest

from skyinfra.server.fleet.certificates import Authority

RANKS = "echo rank $SKYPILOT_NODE_RANK of $SKYPILOT_NUM_NODES"
WAIT = "echo begun; touch ~/begun; while [ ! -e ~/go ]; do sleep 0.05; done; echo done"


@pytest.fixture
def three(several):
    return several.start()


def lines(log):
    return sorted(log.decode().splitlines())


def release(several):
    for node in several.nodes:
        (node.home / "go").touch()


def begun(several):
    several.head.until(lambda: all((node.home / "begun").exists() for node in several.nodes))


def processes_of_jobs(several):
    """Pids of scripts, by name; agents, zygotes and supervisors are Python."""
    found = []
    for node in several.nodes:
        for pid in node.processes():
            with contextlib.suppress(OSError):
                name = Path(f"/proc/{pid}/comm").read_text().strip()
                if name in ("bash", "sleep"):
                    found.append((pid, name))
    return found


def test_every_node_runs_its_rank_and_each_line_says_which(three):
    row, log = three.finish(RANKS + "; echo $SKYPILOT_NODE_IPS")
    assert (row["state"], row["exit_codes"], row["resources"]) == ("SUCCEEDED", [0, 0, 0], "3x[CPU:0.5]")
    got = [re.sub(r"pid=\d+", "pid=N", line) for line in lines(log)]
    ips = " ".join(three.ips)
    assert got == [
        f"(head, rank=0, pid=N) {ips}",
        "(head, rank=0, pid=N) rank 0 of 3",
        f"(worker1, rank=1, pid=N, ip={three.ips[1]}) {ips}",
        f"(worker1, rank=1, pid=N, ip={three.ips[1]}) rank 1 of 3",
        f"(worker2, rank=2, pid=N, ip={three.ips[2]}) {ips}",
        f"(worker2, rank=2, pid=N, ip={three.ips[2]}) rank 2 of 3",
    ]


def test_each_rank_has_a_log_of_its_own_and_others_do_not_exist(three):
    job_id = three.submit(RANKS)
    three.head.wait(job_id)
    assert three.head.log(job_id, "rank=2").endswith(b"rank 2 of 3\n")
    assert three.head.log(job_id, "rank=0").endswith(b"rank 0 of 3\n")
    assert three.head.call("GET", f"/jobs/{job_id}/log?rank=3")[0] == 404


def test_setup_runs_on_every_node_before_run_runs_anywhere(three):
    setup = "echo $SKYPILOT_SETUP_NODE_RANK; [ $SKYPILOT_SETUP_NODE_RANK = 2 ] && sleep 1; touch ~/ready"
    run = "; ".join(f"[ -e {node.home}/ready ] || exit 9" for node in three.nodes)
    row, log = three.finish(run, nodes=2, setup=setup)
    assert (row["state"], row["exit_codes"]) == ("SUCCEEDED", [0, 0])
    assert len([line for line in lines(log) if line.startswith("(setup, pid=")]) == 3


def test_setup_that_fails_on_one_node_ends_the_job_before_run(three):
    setup = "[ $SKYPILOT_SETUP_NODE_RANK != 1 ] || exit 5"
    row, _ = three.finish("touch ~/ran", setup=setup)
    assert row["state"] == "FAILED_SETUP"
    assert 5 in row["exit_codes"]
    assert not any((node.home / "ran").exists() for node in three.nodes)


def test_one_rank_that_fails_ends_the_others_and_all_exit_codes_are_kept(three):
    begin = time.monotonic()
    row, log = three.finish("[ $SKYPILOT_NODE_RANK = 1 ] && { echo bad; exit 7; }; sleep 600")
    assert (row["state"], row["exit_codes"]) == ("FAILED", [137, 7, 137])
    assert "rank 1 on worker1: exit code 7" in row["reason"]
    assert b"bad\n" in log
    assert time.monotonic() - begin < 60
    assert processes_of_jobs(three) == []


def test_a_cancel_leaves_no_process_on_any_node(three):
    job_id = three.submit("(setsid sleep 700 &) ; " + WAIT)
    begun(three)
    assert three.head.call("POST", f"/jobs/{job_id}/cancel", {})[1]["state"] == "CANCELLED"
    assert processes_of_jobs(three) == []


def test_a_job_on_fewer_nodes_runs_beside_another(several):
    several.start(gpus="gpu-a")
    two = several.submit(WAIT, nodes=2, demand={"cpus": 1, "gpus": 1})
    several.head.wait(two, "RUNNING")
    row, log = several.finish("hostname >/dev/null; echo $CUDA_VISIBLE_DEVICES", nodes=1, demand={"cpus": 1, "gpus": 1})
    assert (row["state"], len(row["exit_codes"])) == ("SUCCEEDED", 1)
    assert re.fullmatch(rb"\(task, pid=\d+\) gpu-a\n", log)
    waits = several.submit("true", nodes=2, demand={"cpus": 1, "gpus": 1})
    assert several.head.job(waits)["state"] == "PENDING"  # one node is free, and one is not enough
    release(several)
    assert several.head.wait(two)["state"] == several.head.wait(waits)["state"] == "SUCCEEDED"


def test_more_nodes_than_there_are_is_refused(three):
    body = {"key": "k", "run": "true", "ranks": [{"slot": None}] * 4}
    status, said = three.head.call("POST", "/jobs", body)
    assert (status, said["type"]) == (400, "bad_request")
    assert "on each of 4 nodes" in said["message"]


@pytest.mark.parametrize("victim", ["head", "worker"])
def test_a_rank_outlives_its_agent_and_no_line_is_lost_or_doubled(three, victim):
    count = "for i in $(seq 1 400); do echo line $i; sleep 0.005; done; "
    job_id = three.submit(count + WAIT)
    three.head.wait(job_id, "RUNNING")
    slot = 0 if victim == "head" else 1
    for _ in range(3):
        three.nodes[slot].until(lambda: three.head.log(job_id))
        three.nodes[slot].crash()
        three.start_one(slot, cpus=4)
    release(three)
    row = three.head.wait(job_id)
    assert (row["state"], row["exit_codes"]) == ("SUCCEEDED", [0, 0, 0])
    log = three.head.log(job_id).decode()
    for name in ("head", "worker1", "worker2"):
        numbers = re.findall(rf"\({name}, .*\) line (\d+)", log)
        assert numbers == [str(n) for n in range(1, 401)], name
    assert log.count(" done\n") == 3


HEAD_DIES = (
    "gang.start.before",
    "rank.start.before",
    "rank.start.recorded",
    "gang.start.made",
    "gang.go.before",
    "gang.go.recorded",
    "gang.go.made",
)
WORKER_DIES = ("rank.start.before", "rank.start.recorded", "rank.start.made")


#: One of a kind is tried with every commit, the others where there is time.
QUICK = {(0, "gang.go.recorded"), (1, "rank.start.recorded")}


@pytest.mark.parametrize(
    ("slot", "name"),
    [
        pytest.param(*case, marks=[] if case in QUICK else [pytest.mark.slow])
        for case in [*((0, name) for name in HEAD_DIES), *((1, name) for name in WORKER_DIES)]
    ],
)
def test_an_agent_killed_at_a_boundary_of_a_gang_starts_no_rank_twice_and_none_never(several, slot, name):
    several.start()
    victim = several.nodes[slot]
    victim.crash()
    several.start_one(slot, faults=True)
    several.head.until(lambda: several.finish("true")[0]["state"] == "SUCCEEDED")  # linked again
    victim.arm(name)
    job_id = several.submit("echo ran >> ~/ran", setup="echo set up >> ~/set-up")
    assert victim.reached(name) == victim.process.pid
    victim.crash()
    several.start_one(slot)
    assert several.head.wait(job_id)["state"] == "SUCCEEDED"
    for node in several.nodes:
        assert (node.home / "ran").read_text() == "ran\n"
        assert (node.home / "set-up").read_text() == "set up\n"


@pytest.mark.parametrize(
    "name",
    [
        "gang.end.before",
        pytest.param("gang.end.recorded", marks=pytest.mark.slow),
        pytest.param("gang.end.made", marks=pytest.mark.slow),
    ],
)
def test_a_head_killed_while_it_ends_a_gang_ends_all_of_it(several, name):
    several.start()
    several.head.crash()
    several.start_one(0, faults=True)
    job_id = several.submit(WAIT)
    begun(several)
    several.head.arm(name)
    asking = threading.Thread(target=lambda: _ignored(several.head, job_id))
    asking.start()
    several.head.reached(name)
    several.head.crash()
    asking.join()
    several.start_one(0)
    assert several.head.wait(job_id)["state"] == "CANCELLED"
    several.head.until(lambda: processes_of_jobs(several) == [])


@pytest.mark.parametrize("slot", [0, 1])
def test_a_supervisor_killed_at_the_gate_fails_the_job_before_anything_ran(several, slot):
    several.start()
    victim = several.nodes[slot]
    victim.crash()
    several.start_one(slot, faults=True)
    victim.arm("supervisor.gate.before")
    job_id = several.submit("touch ~/ran")
    os.kill(victim.reached("supervisor.gate.before"), signal.SIGKILL)
    row = several.head.wait(job_id)
    assert row["state"] == "FAILED_DRIVER"
    assert "its supervisor" in row["reason"]
    assert not any((node.home / "ran").exists() for node in several.nodes)


def _ignored(node, job_id):
    with contextlib.suppress(OSError, http.client.HTTPException):
        node.call("POST", f"/jobs/{job_id}/cancel", {})


def test_a_worker_that_is_not_heard_is_lost_and_its_job_fails_with_the_reason(three):
    job_id = three.submit(WAIT)
    begun(three)
    os.kill(three.workers[1].process.pid, signal.SIGSTOP)  # alive, and silent: as behind a cut cable
    try:
        row = three.head.wait(job_id)
        assert (row["state"], row["exit_codes"]) == ("FAILED", [137, 137, 255])
        assert f"worker2 ({three.ips[2]}) was lost: not heard for 12 s" in row["reason"]
        assert three.health()[2][-1] == "LOST"
    finally:
        os.kill(three.workers[1].process.pid, signal.SIGCONT)
    # it comes back: what the head gave up is ended there, and the node serves again
    three.head.until(lambda: three.health()[2][-1] == "READY")
    three.head.until(lambda: processes_of_jobs(three) == [])
    assert three.finish(RANKS)[0]["state"] == "SUCCEEDED"


def test_a_machine_that_was_replaced_has_lost_its_part(three):
    job_id = three.submit(WAIT)
    begun(three)
    worker = three.workers[0]
    worker.kill(grace=0.5)
    for name in ("ledger.db", "ledger.db-wal", "ledger.db-shm"):
        (worker.state / name).unlink(missing_ok=True)
    three.start_one(1)
    row = three.head.wait(job_id)
    assert row["state"] == "FAILED"
    assert "worker1" in row["reason"]


def test_a_restarted_machine_ends_its_gang_jobs(three):
    job_id = three.submit(WAIT)
    begun(three)
    for node in three.nodes:
        node.kill()
    for slot in range(3):
        three.start_one(slot, boot=2)
    assert three.head.wait(job_id)["state"] == "FAILED_DRIVER"
    three.head.until(lambda: processes_of_jobs(three) == [])


def test_a_node_of_another_cluster_is_no_worker(three):
    stranger = Authority.make("other").leaf(1)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=three.tls[1]["ca"])
    path = three.head.root / "stranger.pem"
    path.write_text(stranger["cert"] + stranger["key"])
    context.load_cert_chain(path)
    port = three.head.get("/health")["link_port"]
    with pytest.raises((ssl.SSLError, ConnectionError)):
        _greet(context, three.ips[0], port)
    own = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    own.load_verify_locations(cadata=three.tls[1]["ca"])
    path.write_text(three.tls[1]["cert"] + three.tls[1]["key"])
    own.load_cert_chain(path)
    assert _greet(own, three.ips[0], port)  # the same words from one of its own


def _greet(context, ip, port):
    with socket.create_connection((ip, port), 5) as raw, context.wrap_socket(raw, server_hostname="node-0") as sock:
        sock.sendall(b"\0\0\0\x10\0\0\0\0" + b'{"kind":"hello"}')
        said = sock.recv(1)
        if not said:
            raise ConnectionError("hung up on")
        return said


def test_secrets_of_a_job_leave_no_file_on_any_node(three):
    job_id = three.submit(WAIT, secrets={"TOKEN": "s3cr3t-canary"})
    begun(three)
    for node in three.nodes:
        for folder, _, names in os.walk(node.root):
            for name in names:
                path = os.path.join(folder, name)
                if os.path.isfile(path):
                    assert b"s3cr3t-canary" not in Path(path).read_bytes(), path
    release(three)
    assert three.head.wait(job_id)["state"] == "SUCCEEDED"
