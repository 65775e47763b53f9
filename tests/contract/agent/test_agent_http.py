"""The wire itself: who may call, what is refused and how, and that the agent goes on after all of it."""

import json
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

CALLS = [
    ("GET", "/health"),
    ("PUT", "/config"),
    ("HEAD", "/files/" + "0" * 64),
    ("PUT", "/files/" + "0" * 64),
    ("POST", "/files/apply"),
    ("POST", "/jobs"),
    ("GET", "/jobs"),
    ("GET", "/jobs/1"),
    ("POST", "/jobs/1/cancel"),
    ("GET", "/jobs/1/log"),
    ("GET", "/jobs/1/files"),
    ("POST", "/drain"),
    ("DELETE", "/drain"),
    ("GET", "/events"),
    ("POST", "/shutdown"),
    ("GET", "/nowhere"),
]


@pytest.mark.parametrize("token", ["", "wrong", "t0ken-of-this-nod", "t0ken-of-this-node2"])
def test_every_call_needs_the_token(agent, token):
    for method, path in CALLS:
        status, body = agent.call(method, path, token=token)
        assert status == 401, (method, path)
        assert method == "HEAD" or body["type"] == "unauthorized"


def test_health_says_who_answers(agent):
    health = agent.get("/health")
    assert (health["boot"], health["generation"], health["state"]) == (1, 1, "ready")
    assert health["pid"] == agent.process.pid
    assert health["version"] in agent.pyz.name


def test_socket_and_state_are_for_the_owner_only(agent):
    modes = {name: stat.S_IMODE(Path(name).stat().st_mode) for name in (agent.socket, agent.state, agent.root / "s")}
    assert list(modes.values()) == [0o600, 0o700, 0o700]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"run": "true"}, "key is missing"),
        ({"key": "bad-1"}, "run is missing"),
        ({"key": 7, "run": "true"}, "key must be"),
        ({"key": "bad-2", "run": "true", "envs": {"A": 1}}, "envs must be"),
        ({"key": "bad-3", "run": "true", "envs": {"A=B": "1"}}, "A=B"),
        ({"key": "bad-4", "run": "true", "demand": {"cpus": 5}}, "5 CPUs"),
        ({"key": "bad-5", "run": "true", "demand": {"gpus": 3}}, "3 GPUs"),
        ({"key": "bad-6", "run": "true", "demand": {"gpus": 1.5}}, "whole"),
        ({"key": "bad-7", "run": "true", "demand": {"cpus": -1}}, "non-negative"),
        ({"key": "bad-8", "run": "true", "ranks": [{"slot": 0}, {"slot": 1}]}, "on each of 2 nodes"),
        ([1], "not a JSON object"),
        (b"{", "not JSON"),
        (b"[" * 200000, "not JSON"),
    ],
)
def test_a_bad_submit_is_refused_by_name(agent, body, said):
    before = len(agent.get("/jobs")["jobs"])
    status, error = agent.call("POST", "/jobs", body)
    assert (status, error["type"]) == (400, "bad_request")
    assert said in error["message"]
    assert "Traceback" not in error["message"]
    assert len(agent.get("/jobs")["jobs"]) == before


def test_unknown_fields_of_a_newer_peer_are_ignored(agent):
    assert agent.finish("true", colour="blue")[0]["state"] == "SUCCEEDED"


@pytest.mark.parametrize("path", ["/jobs/999999", "/jobs/999999/log", "/jobs/999999/files", "/nowhere", "/jobs/x"])
def test_unknown_things_are_not_found(agent, path):
    status, error = agent.call("GET", path)
    assert (status, error["type"]) == (404, "not_found")


def test_cancel_of_an_unknown_job_is_not_found(agent):
    assert agent.call("POST", "/jobs/999999/cancel", {})[0] == 404


def test_a_wrong_number_in_the_query_is_a_bad_request(agent):
    assert agent.call("GET", "/jobs?ids=a")[0] == 400
    assert agent.call("GET", "/events?after=x")[0] == 400


def test_a_huge_head_is_refused_and_the_agent_goes_on(agent):
    for size in (40000, 400000):
        assert agent.call("GET", "/health", headers={"X-Long": "y" * size})[0] == 431
    assert agent.call("GET", "/health")[0] == 200


def test_garbage_on_the_socket_is_refused_and_the_agent_goes_on(agent):
    for garbage in (b"\x00\xff\r\n\r\n", b"GET\r\n\r\n", b"GET /v1/health HTTP/1.1\r\nbad\r\n\r\n"):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(5)
            sock.connect(agent.socket)
            sock.sendall(garbage)
            assert b" 400 " in sock.recv(4096).split(b"\r\n")[0]
    assert agent.call("GET", "/health")[0] == 200


def test_one_connection_carries_many_requests(agent):
    conn = agent.connect()
    for _ in range(3):
        conn.request("GET", "/v1/health", headers={"Authorization": "Bearer t0ken-of-this-node"})
        sock = conn.sock
        assert json.loads(conn.getresponse().read())["state"] == "ready"
        assert conn.sock is sock
    conn.close()


def test_a_second_agent_of_one_state_folder_is_refused(agent):
    done = subprocess.run(agent.argv(), env=agent.env, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr.count("\n")) == (75, 1)
    assert agent.get("/health")["pid"] == agent.process.pid


def test_drain_refuses_new_jobs_but_not_known_ones_until_it_is_lifted(agent):
    known = agent.submit("true", key="before-drain")
    assert agent.call("POST", "/drain", {"reason": "stopping the cluster"})[0] == 200
    try:
        status, error = agent.call("POST", "/jobs", {"key": "during-drain", "run": "true"})
        assert (status, error["type"], error["message"]) == (409, "draining", "stopping the cluster")
        assert agent.get("/health")["state"] == "draining"
        assert agent.submit("true", key="before-drain") == known
    finally:
        assert agent.call("DELETE", "/drain")[0] == 200
    assert agent.finish("true", key="during-drain")[0]["state"] == "SUCCEEDED"


def test_status_command_tells_the_living_agent(agent):
    argv = [agent.python, str(agent.pyz), "status", "--state", str(agent.state)]
    told = json.loads(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)
    assert (told["alive"], told["pid"], told["socket"]) == (True, agent.process.pid, agent.socket)


def test_the_package_runs_as_the_zipapp_does(node):
    node.python = sys.executable
    argv = node.argv()
    argv[1:2] = ["-m", "skyinfra.runtime"]
    with open(node.root / "agent.log", "w") as log:
        node.process = subprocess.Popen(argv, env=node.env, stderr=log, start_new_session=True)
    node.wait_ready()
    assert node.finish("exit 4")[0]["exit_codes"] == [4]
