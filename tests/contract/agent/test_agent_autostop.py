"""Autostop and hooks on the node: when it says that its time is over, what it runs, and when it acts by itself."""

import json
import socket
import time

import pytest

TOKEN = "t0ken-of-this-node"
POLICY = {"idle_minutes": 1, "down": False, "wait_for": "jobs_and_ssh", "setting": 1}


def configure(node, minute_s=0.5, hooks=(), **policy):
    body = {"autostop": {**POLICY, **policy}, "minute_s": minute_s, "hooks": list(hooks), "cluster": {"cloud": "local"}}
    assert node.call("PUT", "/config", body)[0] == 200


def events(node, kind):
    """Those the ledger holds, without waiting."""
    reply = node.request("GET", "/events?after=0")
    found = []
    try:
        while True:
            event = json.loads(reply.readline())
            if event["kind"] == "heartbeat":
                return found  # it comes when all that is stored was sent
            if event["kind"] == kind:
                found.append(event["body"])
    finally:
        reply.close()


@pytest.fixture
def listener():
    """Holds event streams open, as a server does: the node knows that somebody listens."""
    held = []

    def listen(node):
        conn = node.connect()
        conn.request("GET", "/v1/events?after=0", headers={"Authorization": f"Bearer {TOKEN}"})
        held.append((conn, conn.getresponse()))

    yield listen
    for conn, _ in held:
        if conn.sock is not None:
            conn.sock.shutdown(socket.SHUT_RDWR)
        conn.close()


def test_an_idle_node_says_once_per_setting_that_its_time_is_over(node, listener):
    node.start()
    listener(node)
    configure(node)
    first = node.until(lambda: events(node, "autostop"))
    assert [(e["event"], e["setting"]) for e in first] == [("stop", 1)]
    configure(node)  # pushed again, as after each reconnect: nothing new
    configure(node, setting=2, down=True)
    both = node.until(lambda: len(found := events(node, "autostop")) == 2 and found)
    assert [(e["event"], e["setting"]) for e in both] == [("stop", 1), ("down", 2)]


def test_a_job_is_activity_unless_the_limit_waits_for_nothing(node, listener):
    node.start()
    listener(node)
    job = node.submit("sleep 60")
    node.wait(job, "RUNNING")
    configure(node, minute_s=0.2)
    configure(node, minute_s=0.2, setting=2, wait_for="none")
    found = node.until(lambda: events(node, "autostop"))
    assert [e["setting"] for e in found] == [2]
    assert node.job(job)["state"] == "RUNNING", "somebody listens: stopping it is the server's to do"


def test_called_off_it_says_nothing_and_a_restarted_agent_keeps_its_setting(node, listener):
    node.start()
    configure(node, minute_s=600)
    node.crash()
    node.start(generation=2)
    listener(node)
    configure(node, setting=2, idle_minutes=-1)
    configure(node, setting=3, minute_s=0.1)
    found = node.until(lambda: events(node, "autostop"))
    assert [e["setting"] for e in found] == [3]


def test_the_node_ends_itself_when_nobody_listens_and_its_disk_stays(node):
    node.start()
    job = node.submit("sleep 600")
    node.wait(job, "RUNNING")
    configure(node, wait_for="none", hooks=[{"run": "echo $SKYPILOT_HOOK_EVENT > ~/hooked", "events": ["stop"]}])
    assert node.process.wait(40) == 0
    node.until(lambda: not node.processes())
    assert json.loads((node.state / "poweroff.json").read_text())["why"] == "autostop"
    assert (node.home / "hooked").read_text() == "stop\n"
    node.start(boot=2)
    assert node.get("/health")["state"] == "ready", "the start ends the drain"
    assert node.job(job)["state"] == "FAILED_DRIVER"


def test_hooks_run_one_after_another_and_their_failures_are_theirs(node):
    node.start()
    hooks = [
        {"run": "echo one; exit 3"},
        {"run": "sleep 60", "timeout": 1},
        {"run": "echo $SKYPILOT_HOOK_EVENT $HOME >> ~/seen", "events": ["down"]},
        {"run": "echo no >> ~/seen", "events": ["stop"]},
    ]
    configure(node, minute_s=600, hooks=hooks)
    body = {"event": "down", "key": "r1", "auto": False}
    node.until(lambda: node.call("POST", "/hooks", body) == (200, {"done": True}))
    assert node.call("POST", "/hooks", body) == (200, {"done": True}), "again: each hook ran once"
    assert (node.home / "seen").read_text() == f"down {node.home}\n"
    log = (node.home / ".sky" / "hooks" / "down.log").read_text()
    for words in ("one\n", "exit code 3", "ended after 1 s, its timeout", "exit code 0"):
        assert words in log


def test_the_first_event_to_claim_the_nodes_end_wins_until_it_is_given_back(node):
    node.start()
    configure(node, minute_s=600, hooks=[{"run": "echo $SKYPILOT_HOOK_EVENT >> ~/seen"}])
    assert node.call("POST", "/hooks", {"event": "stop", "key": "a"})[1] == {"done": True}
    status, error = node.call("POST", "/hooks", {"event": "down", "key": "b"})
    assert (status, error["type"]) == (409, "claimed")
    node.call("DELETE", "/drain")
    assert node.call("POST", "/hooks", {"event": "down", "key": "b"})[1] == {"done": True}
    assert (node.home / "seen").read_text() == "stop\ndown\n"


def test_a_hook_is_not_run_again_by_the_next_agent(node):
    node.start(faults=True)
    configure(node, minute_s=600, hooks=[{"run": "echo x >> ~/seen"}, {"run": "echo y >> ~/seen"}])
    node.arm("agent.hooks.made")
    conn = node.connect()
    body = json.dumps({"event": "stop", "key": "a"})
    conn.request("POST", "/v1/hooks", body, {"Authorization": f"Bearer {TOKEN}"})
    node.reached("agent.hooks.made")
    node.crash()
    conn.close()
    (node.faults / "agent.hooks.made").unlink(missing_ok=True)
    node.start(generation=2)
    assert node.call("POST", "/hooks", {"event": "stop", "key": "a"})[1] == {"done": True}
    assert (node.home / "seen").read_text() == "x\ny\n"


@pytest.mark.parametrize("body", [{"event": "lunch", "key": "a"}, {"event": "stop"}])
def test_hooks_of_no_event_or_without_a_key_are_refused(agent, body):
    status, error = agent.call("POST", "/hooks", body)
    assert (status, error["type"]) == (400, "bad_request")


def test_what_runs_past_the_wait_is_asked_for_again(node):
    node.start()
    configure(node, minute_s=600, hooks=[{"run": "until [ -e ~/go ]; do sleep 0.05; done"}])
    begun = time.monotonic()
    assert node.call("POST", "/hooks", {"event": "stop", "key": "a"})[1] == {"done": False}
    assert time.monotonic() - begun < 15
    (node.home / "go").touch()
    assert node.call("POST", "/hooks", {"event": "stop", "key": "a"})[1] == {"done": True}
