"""A real agent process per test or per module, under each Python found here, with a small client for it.

Every reply is checked against the committed JSON Schema. At the end the node is killed and a scan of /proc proves that
nothing of it is left.
"""

import contextlib
import http.client
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jsonschema
import pytest

from skyinfra.runtime import package, procs, schema
from skyinfra.server.fleet.certificates import Authority

TOKEN = "t0ken-of-this-node"
DEADLINE_S = 20.0
FINAL = {"FAILED_DRIVER", "SUCCEEDED", "FAILED", "FAILED_SETUP", "CANCELLED"}
SCHEMA = schema.document()
REPLIES = (
    ("GET", r"/health", "Health"),
    ("POST", r"/jobs", "Submitted"),
    ("GET", r"/jobs(\?.*)?", "Jobs"),
    ("GET", r"/jobs/\d+", "JobRow"),
    ("POST", r"/jobs/\d+/cancel", "JobRow"),
    ("POST", r"/hooks", "HooksRun"),
    ("POST", r"/files/apply", "FilesMissing"),
    ("POST", r"/files/git", "GitState"),
)


def validate(name, value):
    jsonschema.validate(value, {"$ref": f"#/$defs/{name}", "$defs": SCHEMA["$defs"]})


def pythons():
    """(version, path) of every Python 3.8 to 3.13 here, this one first, then the oldest first."""
    found = {sys.version_info[:2]: sys.executable}
    roots = [Path("~/.pyenv/versions").expanduser().glob("*/bin"), map(Path, os.environ["PATH"].split(":"))]
    for folder in (folder for root in roots for folder in root):
        for minor in range(8, 14):
            path = folder / f"python3.{minor}"
            # pyenv's shims start whatever is selected now
            if "shims" not in path.parts and (3, minor) not in found and os.access(path, os.X_OK):
                found[3, minor] = str(path)
    here = found.pop(sys.version_info[:2])
    return [(sys.version_info[:2], here), *sorted(found.items())]


def pytest_generate_tests(metafunc):
    if "python" in metafunc.fixturenames:
        quick = 0 if "several" in metafunc.fixturenames else 1  # three nodes take their time
        cases = [
            pytest.param(path, id="py{}.{}".format(*version), marks=[pytest.mark.slow] if place > quick else [])
            for place, (version, path) in enumerate(pythons())
        ]
        metafunc.parametrize("python", cases, scope="module")


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("agent", timeout=2 * DEADLINE_S)
        self._path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Node:
    """One node folder and its agent. `start` may be called again: a replacement of the same node."""

    def __init__(self, root, python, pyz):
        self.root, self.python, self.pyz = Path(root), python, pyz
        self.state, self.home, self.faults = self.root / "agent", self.root / "home", self.root / "faults"
        self.socket = str(self.root / "s" / "a.sock")
        self.state.mkdir(mode=0o700)
        self.faults.mkdir()
        (self.state / "token").write_text(TOKEN)
        self.process = None
        self.env = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "SKYINFRA_HOME": str(self.root)}

    def argv(self, *, boot=1, generation=1, cpus=4, gpus="", extra=()):
        argv = [self.python, str(self.pyz), "serve", "--state", str(self.state), "--home", str(self.home)]
        argv += ["--socket", self.socket, "--boot", str(boot), "--generation", str(generation), "--cpus", str(cpus)]
        return [*argv, "--gpus", gpus, *extra]

    def start(self, faults=False, **options):
        env = dict(self.env, **({"SKYINFRA_FAULTS": str(self.faults)} if faults else {}))
        with open(self.root / "agent.log", "a") as log:
            self.process = subprocess.Popen(
                self.argv(**options), env=env, stderr=log, stdout=log, stdin=subprocess.DEVNULL, start_new_session=True
            )
        self.wait_ready()
        return self

    def wait_ready(self):
        def ready():
            assert self.process.poll() is None, (self.root / "agent.log").read_text()
            with contextlib.suppress(OSError):
                return self.get("/health")["pid"] == self.process.pid
            return False

        self.until(ready)

    def until(self, condition, deadline_s=DEADLINE_S):
        """The condition's first true value; fails at the deadline."""
        end = time.monotonic() + deadline_s
        while time.monotonic() < end:
            value = condition()
            if value:
                return value
            time.sleep(0.01)
        log = (self.root / "agent.log").read_text()
        pytest.fail(f"not so within {deadline_s} s: {condition}; agent.log:\n{log}")
        return None

    # --- HTTP

    def connect(self):
        return UnixConnection(self.socket)

    def request(self, method, path, body=None, headers=None, token=TOKEN):
        conn = self.connect()
        raw = json.dumps(body).encode() if isinstance(body, (dict, list)) else body
        conn.request(method, "/v1" + path, raw, {"Authorization": "Bearer " + token, **(headers or {})})
        return conn.getresponse()

    def call(self, method, path, body=None, **kw):
        """(status, JSON), checked against the schema."""
        reply = self.request(method, path, body, **kw)
        value = json.loads(reply.read() or b"{}")
        if reply.status >= 400:
            if method != "HEAD":
                validate("Error", value)
        else:
            for verb, pattern, name in REPLIES:
                if verb == method and re.fullmatch(pattern, path):
                    validate(name, value)
        return reply.status, value

    def get(self, path):
        status, value = self.call("GET", path)
        assert status == 200, value
        return value

    def submit(self, run="true", key=None, **fields):
        self.keys = getattr(self, "keys", 0) + 1
        body = {"key": key or f"key-{self.keys}", "run": run, **fields}
        status, value = self.call("POST", "/jobs", body)
        assert status == 200, value
        return value["job_id"]

    def job(self, job_id):
        return self.get(f"/jobs/{job_id}")

    def wait(self, job_id, states=FINAL):
        states = {states} if isinstance(states, str) else states
        return self.until(lambda: (row := self.job(job_id))["state"] in states and row)

    def log(self, job_id, query=""):
        reply = self.request("GET", f"/jobs/{job_id}/log?{query}")
        assert reply.status == 200
        return reply.read()

    def finish(self, run="true", **fields):
        """Submit, wait for the end: (row, log)."""
        job_id = self.submit(run, **fields)
        return self.wait(job_id), self.log(job_id)

    def events(self, after):
        """All events that there are now."""
        reply = self.request("GET", f"/events?after={after}")
        found = []
        while True:
            event = json.loads(reply.readline())
            if event["kind"] == "heartbeat":
                return found
            found.append(event)

    # --- processes and faults

    def crash(self, number=signal.SIGKILL):
        os.kill(self.process.pid, number)
        self.process.wait(DEADLINE_S)

    def arm(self, name):
        (self.faults / name).touch()

    def reached(self, name):
        """The pid of the process that stands at the boundary."""
        found = self.until(lambda: list(self.faults.glob(name + ".reached.*")))
        return int(found[0].name.rsplit(".", 1)[1])

    def processes(self):
        table = procs.snapshot()
        return procs.marked(f"SKYINFRA_HOME={self.root}".encode(), table)

    def kill(self, grace=8.0):
        argv = [self.python, str(self.pyz), "kill", "--state", str(self.state), "--grace", str(grace)]
        done = subprocess.run(argv, env=self.env, capture_output=True, text=True, timeout=60)
        if self.process is not None:
            self.process.wait(DEADLINE_S)
        return done.returncode, json.loads(done.stdout)


@pytest.fixture(scope="session")
def pyz(tmp_path_factory):
    return package.build(tmp_path_factory.mktemp("agent"))


@contextlib.contextmanager
def _node(python, pyz):
    root = tempfile.mkdtemp(prefix="sky-")  # short: a socket path ends at 108 bytes
    node = Node(root, python, pyz)
    try:
        yield node
        assert node.kill(grace=1.0)[1]["left"] == []
        node.until(lambda: not node.processes(), 5.0)
    finally:
        for pid in node.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(root)


class Several:
    """A head and its workers, each with an address of its own: what a server makes of nodes, by hand."""

    def __init__(self, nodes):
        self.nodes = nodes
        self.head, *self.workers = nodes
        random = secrets.SystemRandom()
        net = f"127.{random.randrange(64, 250)}.{random.randrange(250)}"
        self.ips = [f"{net}.{10 + slot}" for slot in range(len(nodes))]
        authority = Authority.make("test")
        self.tls = [authority.leaf(slot) for slot in range(len(nodes))]
        self.gpus = ""

    def start(self, cpus=4, gpus=""):
        self.gpus = gpus
        for slot in range(len(self.nodes)):
            self.start_one(slot, cpus=cpus, gpus=gpus)
        self.configure()
        return self

    def start_one(self, slot, **options):
        self.nodes[slot].start(extra=("--ip", self.ips[slot]), **{"gpus": self.gpus, **options})

    def configure(self):
        """The head first: it says where it listens."""
        port = 0
        for slot, node in enumerate(self.nodes):
            table = [
                {"slot": s, "ip": ip, "port": 0 if s else port, "cpus": 4, "gpus": self.gpus.split(",")}
                for s, ip in enumerate(self.ips)
            ]
            body = {"node_table": table, "slot": slot, "tls": self.tls[slot], "cluster": {"cluster_name": "c"}}
            assert node.call("PUT", "/config", body)[0] == 200
            port = port or node.get("/health")["link_port"]
        return self

    def submit(self, run="true", nodes=None, **fields):
        ranks = [{"slot": None, "env": {}} for _ in range(nodes or len(self.nodes))]
        return self.head.submit(run, ranks=ranks, **fields)

    def finish(self, run="true", nodes=None, **fields):
        """Submit, wait for the end: (row, log)."""
        job_id = self.submit(run, nodes, **fields)
        return self.head.wait(job_id), self.head.log(job_id)

    def health(self):
        """What the head has told of its nodes: slot -> states, in order."""
        raw = self.head.events(0)
        told = {}
        for event in raw:
            if event["kind"] == "node_health":
                told.setdefault(event["body"]["slot"], []).append(event["body"]["state"])
        return told


@pytest.fixture
def several(python, pyz):
    """Three nodes, not started yet."""
    with contextlib.ExitStack() as stack:
        yield Several([stack.enter_context(_node(python, pyz)) for _ in range(3)])


@pytest.fixture
def node(python, pyz):
    """Not started yet."""
    with _node(python, pyz) as made:
        yield made


@pytest.fixture(scope="module")
def agent(python, pyz):
    """A running one with 4 CPUs and two GPUs, shared by the tests of a module."""
    with _node(python, pyz) as made:
        yield made.start(gpus="gpu-a,gpu-b")
