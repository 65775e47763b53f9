"""A small API server that speaks the HTTP contract from memory, with knobs to break it, and a terminal for commands."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from skyinfra.cli.main import main
from skyinfra.testing.trees import chunks_in, named_in

TOKEN = "a-token"
HANDLE = {
    "cluster_name": "c",
    "cluster_name_on_cloud": "c-abc123",
    "workspace": "default",
    "head_ip": "127.0.3.1",
    "launched_nodes": 1,
    "launched_resources": {"infra": "local", "cpus": "2"},
    "external_ips": ["127.0.3.1"],
    "internal_ips": ["127.0.3.1"],
    "cloud": "Local",
    "region": None,
}


@dataclass
class FakeRequest:
    id: str
    verb: str
    body: dict[str, Any]
    key: str | None
    status: str = "SUCCEEDED"
    result: Any = None
    error: dict[str, Any] | None = None
    events: list[dict[str, Any]] = field(default_factory=list)

    def payload(self) -> dict[str, Any]:
        return {
            "request_id": self.id,
            "name": f"sky.{self.verb}",
            "status": self.status,
            "created_at": time.time(),
            "user_name": "ann",
            "cluster_name": self.body.get("cluster_name"),
            "operations": [
                {
                    "id": "op1",
                    "kind": "up",
                    "state": "succeeded",
                    "version": 3,
                    "changes": {"create": 2, "update": 0, "replace": 0, "delete": 0, "same": 0},
                }
            ],
        }


@dataclass
class FakeServer:
    """State and knobs. `cut_streams`: each entry breaks one stream after that many bytes."""

    clusters: list[dict[str, Any]] = field(default_factory=list)
    jobs: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    logs: dict[tuple[str, int], bytes] = field(default_factory=dict)
    requests: dict[str, FakeRequest] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    chunks: dict[str, bytes] = field(default_factory=dict)
    seen: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    files: bytes = b""
    entries: list[dict[str, Any]] = field(default_factory=list)
    error: dict[str, Any] | None = None
    cut_streams: list[int] = field(default_factory=list)
    drop_replies: int = 0
    busy_replies: int = 0
    api: str = "1"
    pending_results: int = 0
    cluster_error: dict[str, Any] | None = None
    on_stream: Callable[[], None] | None = None
    """Called when a stream is asked for, before its first byte."""
    hang_up: bool = False
    """Every connection ends without an answer."""

    def answer(self, request: FakeRequest) -> None:
        """Carry a verb out at once."""
        if self.error is not None:
            request.status, request.error = "FAILED", self.error
            return
        body = request.body
        if request.verb == "status":
            names = body["cluster_names"]
            request.result = [c for c in self.clusters if names is None or c["name"] in names]
        elif request.verb == "queue":
            if body["cluster_name"] not in self.jobs:
                request.status, request.error = "FAILED", no_cluster(body["cluster_name"])
            else:
                request.result = self.jobs[body["cluster_name"]]
        elif request.verb == "job_status":
            jobs = self.jobs[body["cluster_name"]]
            request.result = [[j["job_id"], j["status"]] for j in jobs] or [[None, None]]
        elif request.verb in ("launch", "exec"):
            request.result = {"job_id": 1, "handle": {**HANDLE, "cluster_name": body["cluster_name"]}}
        elif request.verb == "down":
            self.clusters = [c for c in self.clusters if c["name"] != body["cluster_name"]]

    def verbs(self) -> list[str]:
        return [path.rsplit("/", 1)[1] for method, path, _ in self.seen if method == "POST"]


def no_cluster(name: str) -> dict[str, Any]:
    return {"type": "ClusterDoesNotExist", "message": f"Cluster {name} does not exist.", "args": [], "attributes": {}}


def cluster(name: str = "c", status: str = "UP", **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "status": status,
        "workspace": "default",
        "cloud": "Local",
        "region": None,
        "resources_str": "1x(cpus=2)",
        "autostop": -1,
        "to_down": False,
        "launched_at": time.time() - 125,
        "handle": {**HANDLE, "cluster_name": name},
        **more,
    }


def job(job_id: int = 1, status: str = "SUCCEEDED", **more: Any) -> dict[str, Any]:
    """A record of `queue`, and enough of an agent's row for the job routes."""
    return {
        "job_id": job_id,
        "job_name": "t",
        "username": "ann",
        "submitted_at": time.time() - 60,
        "start_at": time.time() - 50,
        "end_at": time.time() - 45,
        "resources": "1x[CPU:0.5]",
        "status": status,
        "state": status,
        "log_path": f"~/sky_logs/{job_id}-t",
        "metadata": {},
        "exit_codes": [0],
        "reason": "",
        **more,
    }


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    fake: FakeServer

    def log_message(self, *_args: object) -> None:
        pass

    def send(self, status: int, body: Any = None, headers: dict[str, str] | None = None) -> None:
        data = b"" if body is None or self.command == "HEAD" else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("X-Skyinfra-Api", self.fake.api)
        self.send_header("X-Skyinfra-Version", "0.0.9")
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def fail(self, status: int, kind: str, message: str, hint: str | None = None) -> None:
        self.send(status, {"type": kind, "message": message, "args": [], "attributes": {}, "hint": hint})

    def send_stream(self, data: bytes, headers: dict[str, str] | None = None) -> None:
        """Chunked; broken off where the next entry of `cut_streams` says."""
        if self.fake.on_stream is not None:
            self.fake.on_stream()
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        cut = self.fake.cut_streams.pop(0) if self.fake.cut_streams else None
        part = data if cut is None else data[:cut]
        for start in range(0, len(part), 7):
            piece = part[start : start + 7]
            self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        if cut is None:
            self.wfile.write(b"0\r\n\r\n")
        else:
            self.close_connection = True

    def handle_any(self) -> None:
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.fake.hang_up:
            self.close_connection = True
            return
        self.fake.seen.append((self.command, url.path, dict(self.headers)))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.fail(401, "ApiServerAuthenticationError", "the token is wrong")
        elif self.fake.busy_replies:
            self.fake.busy_replies -= 1
            self.fail(503, "ServerTemporarilyUnavailableError", "not now")
        else:
            self.route(url.path.removeprefix("/v1/").split("/"), query, raw)

    do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = handle_any

    def route(self, parts: list[str], query: dict[str, str], raw: bytes) -> None:
        match parts:
            case ["version"]:
                self.send(200, {"api": 1, "min_api": 1, "version": "0.0.9", "commit": "abc", "user": "ann", "pid": 1})
            case ["requests", verb] if self.command == "POST":
                self.accept(verb, json.loads(raw))
            case ["requests"] if self.command == "DELETE":
                self.send(200, {"cancelled": list(self.fake.requests)})
            case ["requests"]:
                wanted = query.get("ids", "").split(",")
                rows = [r.payload() for r in self.fake.requests.values() if "ids" not in query or r.id in wanted]
                self.send(200, {"requests": rows[: int(query.get("limit", 50))]})
            case ["requests", request_id, *rest]:
                self.one_request(request_id, rest, query)
            case ["blobs"]:
                self.fake.chunks.update(chunks_in(raw))
                self.send(201, {})
            case ["blobs", digest]:
                self.fake.blobs[digest] = raw
                self.send(201, {})
            case ["blobs", digest, "missing"] if digest in self.fake.blobs:
                self.send(200, {"missing": [c for c in named_in(self.fake.blobs[digest]) if c not in self.fake.chunks]})
            case ["blobs", *_]:
                self.fail(404, "ValueError", "no such manifest")
            case ["clusters", name, "jobs", job_id, *rest]:
                self.job(name, job_id, rest, query)
            case ["doctor"]:
                self.send(200, {"home": "/h", "clusters": [], "entries": self.fake.entries})
            case _:
                self.fail(404, "RuntimeError", f"no such call: {self.path}")

    def accept(self, verb: str, body: dict[str, Any]) -> None:
        key = self.headers.get("Idempotency-Key")
        known = next((r for r in self.fake.requests.values() if r.key == key), None)
        request = known or FakeRequest(str(uuid.uuid4()), verb, body, key)
        if known is None:
            self.fake.answer(request)
            request.events = [*self.fake.events, {"at": 0, "kind": "end", "status": request.status}]
            self.fake.requests[request.id] = request
        if self.fake.drop_replies:
            self.fake.drop_replies -= 1
            self.close_connection = True
            return
        if verb in ("status", "queue", "job_status"):
            self.send(
                200, {"id": request.id, "status": request.status, "result": request.result, "error": request.error}
            )
        else:
            self.send(202, {"id": request.id, "status": "PENDING"})

    def one_request(self, request_id: str, rest: list[str], query: dict[str, str]) -> None:
        found = [r for r in self.fake.requests.values() if r.id.startswith(request_id)]
        if len(found) != 1:
            word = "no request" if not found else "several requests"
            self.fail(400 if found else 404, "RuntimeError", f"{word} match {request_id}")
        elif self.command == "DELETE":
            self.send(200, {"cancelled": [found[0].id]})
        elif not rest:
            self.send(200, found[0].payload())
        elif rest == ["result"]:
            if self.fake.pending_results:
                self.fake.pending_results -= 1
                self.send(202, {"status": "RUNNING"})
            else:
                answer = {"status": found[0].status, "result": found[0].result, "error": found[0].error}
                self.send(200, answer)
        else:
            lines = "".join(json.dumps(event) + "\n" for event in found[0].events).encode()
            self.send_stream(lines[int(query["offset"]) :])

    def job(self, name: str, job_id: str, rest: list[str], query: dict[str, str]) -> None:
        if self.fake.cluster_error is not None:
            self.send(400, self.fake.cluster_error)
            return
        if name not in self.fake.jobs:
            self.send(404, no_cluster(name))
            return
        rows = [j for j in self.fake.jobs[name] if job_id in ("latest", str(j["job_id"]))]
        if not rows:
            self.fail(404, "JobNotFound", f"no job {job_id}")
        elif not rest:
            self.send(200, {**rows[-1], "cluster_name": name})
        elif rest == ["files"]:
            self.send_stream(self.fake.files)
        else:
            data = self.fake.logs.get((name, rows[-1]["job_id"]), b"")
            offset = int(query["offset"])
            self.send_stream(
                data[offset:],
                {"X-Start-Offset": str(offset), "X-Job-State": rows[-1]["state"], "X-Job-Id": str(rows[-1]["job_id"])},
            )


def start_ticks(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


def record_server(home: Path, port: int) -> None:
    """What a running server leaves in its state folder."""
    (home / "token").write_text(TOKEN)
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    record = {"pid": os.getpid(), "start_ticks": start_ticks(os.getpid()), "boot_id": boot_id}
    (home / "server.json").write_text(json.dumps({**record, "host": "127.0.0.1", "port": port, "version": "0.0.9"}))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    for name in list(os.environ):
        if name.startswith(("SKYINFRA_", "SKYPILOT_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("SKYINFRA_HOME", str(folder))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USER", "ann")
    monkeypatch.chdir(tmp_path)
    return folder


class Patient(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # a client that leaves is part of the play
            super().handle_error(request, client_address)


@contextlib.contextmanager
def serving(fake: FakeServer, home: Path) -> Iterator[None]:
    """`fake` on a port of its own, named in server.json; its connections end with it."""
    handler = type("BoundHandler", (Handler,), {"fake": fake})
    httpd = Patient(("127.0.0.1", 0), handler)
    threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    record_server(home, httpd.server_address[1])
    try:
        yield
    finally:
        httpd.shutdown()
        httpd.server_close()


@pytest.fixture
def server(home: Path) -> Iterator[FakeServer]:
    fake = FakeServer()
    with serving(fake, home):
        yield fake


@pytest.fixture
def move_server(server: FakeServer, home: Path) -> Iterator[Callable[[], None]]:
    """End every connection of the server and let it go on at another port."""
    with contextlib.ExitStack() as stack:

        def move() -> None:
            server.hang_up = True
            stack.enter_context(serving(dataclasses.replace(server, hang_up=False), home))

        yield move


@dataclass
class Screen:
    """What one command left on the terminal."""

    code: int
    stdout: str
    stderr: str


@pytest.fixture
def sky(capfd: pytest.CaptureFixture[str]) -> Callable[..., Screen]:
    """Run one command in this process."""

    def run(*argv: str) -> Screen:
        code = main(argv)
        captured = capfd.readouterr()
        return Screen(code, captured.out, captured.err)

    return run


@pytest.fixture
def make() -> Any:
    """Builders of what a server holds."""

    class Make:
        cluster = staticmethod(cluster)
        job = staticmethod(job)
        no_cluster = staticmethod(no_cluster)

    return Make
