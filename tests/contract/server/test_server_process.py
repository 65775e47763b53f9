"""The server as a real process: one per state folder, announced, private, stopped and killed without loss."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest


class Process:
    def __init__(self, home):
        self.home = home
        read, write = os.pipe()
        self.log = (home.parent / "server.log").open("ab")
        self.child = subprocess.Popen(
            [sys.executable, "-m", "skyinfra.server", "--port", "0", "--ready-fd", str(write)],
            pass_fds=[write],
            stdout=self.log,
            stderr=self.log,
            env={**os.environ, "SKYINFRA_HOME": str(home)},
            start_new_session=True,
        )
        os.close(write)
        with os.fdopen(read) as pipe:
            self.said = pipe.readline().strip()
        self.port = int(self.said.split()[1]) if self.said.startswith("ready") else 0

    def call(self, method, path, body=None, token=None):
        token = (self.home / "token").read_text().strip() if token is None else token
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}",
            method=method,
            data=json.dumps(body).encode() if body is not None else None,
            headers={"Authorization": f"Bearer {token}"},
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read() or b"null")

    def do(self, verb, **body):
        status, answer = self.call("POST", f"/v1/requests/{verb}", body)
        assert status == 202, answer
        return self.result(answer["id"])

    def result(self, request_id):
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            status, answer = self.call("GET", f"/v1/requests/{request_id}/result?wait_s=20")
            if status == 200:
                return answer
        raise AssertionError(f"{request_id} did not end")

    def end(self, how=signal.SIGTERM):
        if self.child.poll() is None:
            self.child.send_signal(how)
        code = self.child.wait(30)
        self.log.close()
        return code


@pytest.fixture
def start(tmp_path):
    processes = []

    def go():
        processes.append(Process(tmp_path / "home"))
        return processes[-1]

    yield go
    for process in processes:
        process.end(signal.SIGKILL)


def test_it_announces_itself_and_withdraws(start):
    server = start()
    record = json.loads((server.home / "server.json").read_text())
    assert (record["pid"], record["port"]) == (server.child.pid, server.port)
    for name in ("server.json", "token", "skyinfra.db", "keys/secrets.key", "server-id"):
        assert (server.home / name).stat().st_mode & 0o077 == 0, name
    assert server.call("GET", "/v1/version")[1]["pid"] == server.child.pid
    assert server.call("GET", "/v1/version", token="wrong")[0] == 401
    assert server.end() == 0
    assert not (server.home / "server.json").exists()


def test_a_second_server_on_the_same_folder_is_refused_with_the_owners_pid(start):
    first = start()
    second = start()
    assert second.said == f"error a server already runs on {first.home} (pid {first.child.pid})"
    assert second.child.wait(10) == 3
    assert first.call("GET", "/v1/health")[0] == 200


def test_after_kill_9_the_next_server_has_the_same_identity(start):
    first = start()
    before = first.call("GET", "/v1/version")[1]
    token = (first.home / "token").read_text()
    first.end(signal.SIGKILL)
    second = start()
    after = second.call("GET", "/v1/version")[1]
    assert after["server_id"] == before["server_id"]
    assert (second.home / "token").read_text() == token
    assert after["pid"] != before["pid"]


def test_shutdown_over_http_ends_it(start):
    server = start()
    assert server.call("POST", "/v1/shutdown")[0] == 202
    assert server.child.wait(20) == 0


@pytest.mark.engine
def test_a_cluster_lives_through_the_death_of_its_server_and_agent(start):
    server = start()
    outcome = server.do("launch", task={"name": "t", "run": "sleep 300"}, cluster_name="c")
    assert outcome["status"] == "SUCCEEDED", outcome
    server.end(signal.SIGKILL)
    server = start()
    row = server.call("GET", "/v1/clusters/c/jobs/1")[1]
    assert row["state"] in ("PENDING", "RUNNING")
    (agent_json,) = server.home.glob("nodes/*/agent/agent.json")
    pid = json.loads(agent_json.read_text())["pid"]
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 15
    while json.loads(agent_json.read_text())["pid"] == pid:
        assert time.monotonic() < deadline, "the agent did not come back within 15 s"
        time.sleep(0.05)
    assert server.do("cancel", cluster_name="c", all=True)["status"] == "SUCCEEDED"
    assert server.call("GET", "/v1/clusters/c/jobs/1")[1]["state"] == "CANCELLED"
    assert server.call("GET", "/v1/doctor")[1]["orphans"] == []
    assert server.do("down", cluster_name="c")["status"] == "SUCCEEDED"
    assert list(server.home.glob("nodes/*")) == []
    assert server.call("POST", "/v1/requests/status", {})[1]["result"] == []
    assert server.end() == 0
