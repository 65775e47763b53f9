"""A server in this process over a world that is not there: fake stacks, fake agents, real HTTP, real database."""

import asyncio
import dataclasses
import itertools
import json
from contextlib import asynccontextmanager

import httpx2
import pytest
import uvicorn

from skyinfra.catalog.offers import Offer
from skyinfra.channels import AgentError, Unreachable
from skyinfra.model.home import Home
from skyinfra.runtime.protocol import Event, FilesMissing, GitState, Health, JobRow
from skyinfra.server.app import build
from skyinfra.server.process import _Uvicorn, listen
from skyinfra.server.services import Services
from skyinfra.server.settings import Settings
from skyinfra.stacks.clouds.registry import Standing
from skyinfra.stacks.operation import Changes, OperationEvent, OperationResult
from skyinfra.testing.trees import chunks_in, named_in


@dataclasses.dataclass
class FakeNode:
    """A machine and its agent. `dead` = nobody answers."""

    stack: str
    token: str
    generation: int = 0
    boot: int = 0
    dead: bool = False
    draining: bool = False
    api: int = 1
    off: bool = False
    stopped_by: str | None = None
    incarnation: int = 0
    hooks: list = dataclasses.field(default_factory=list)
    jobs: list = dataclasses.field(default_factory=list)
    events: list = dataclasses.field(default_factory=list)
    files: dict = dataclasses.field(default_factory=dict)
    applied: list = dataclasses.field(default_factory=list)
    checkouts: list = dataclasses.field(default_factory=list)
    chunks: dict = dataclasses.field(default_factory=dict)
    submitted: list = dataclasses.field(default_factory=list)
    config: object = None
    changed: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)

    def note(self, kind, body):
        self.events.append(Event(len(self.events) + 1, 0.0, kind, body))
        self.wake()

    def wake(self):
        self.changed.set()
        self.changed = asyncio.Event()

    def stop(self):
        """From outside: the machine is off, and everything on it."""
        self.off = True
        self.die()

    def die(self):
        self.dead = True
        self.wake()


class World:
    """What exists, and knobs: `refuse` answers the next ups, `gate` holds operations, `left` survives a destroy."""

    def __init__(self):
        self.nodes = {}
        self.operations = []
        self.refuse = []
        self.gate = None
        self.hold_hooks = None
        self.left = []
        self.cpus, self.memory_gb, self.gpus = 4.0, 16.0, {}
        self.cancelled = []
        self.server_of = {}
        self.settled = []
        self.forgotten = []
        self.cpus_of = {}
        self.how_cpus_change = "update"

    # --- launcher
    async def start(self):
        pass

    async def stop(self, grace_s=10):
        pass

    async def settle(self, operation_id):
        self.settled.append(operation_id)

    async def forget(self, operation_id):
        self.forgotten.append(operation_id)

    def _previewed(self, request):
        """As the engine would: a machine that is not there is made, one whose CPUs differ changes."""
        urn = f"urn:pulumi:{request.stack}::skyinfra::skyinfra:local:Machine::{request.stack}-0"
        before, after = self.cpus_of.get(request.stack), request.spec.slots[0].cpus
        op = "create" if before is None else "same" if before == after else self.how_cpus_change
        causes = [{"property": "cpus", "before": before, "after": after, "replaces": op == "replace"}]
        line = {"urn": urn, "type": "skyinfra:local:Machine", "name": f"{request.stack}-0", "op": op}
        refused = op == "replace" and not request.consent
        line |= {"causes": causes if op in ("update", "replace") else [], "refused": refused}
        return OperationResult("succeeded", request.fence, changes=Changes(**{op: 1}), plan=(line,))

    async def run(self, request, secrets, on_event, *, env=None):
        self.operations.append(request)
        urn = f"urn:pulumi:{request.stack}::skyinfra::skyinfra:local:Machine::{request.stack}-0"
        on_event(OperationEvent(1, 0.0, "began", urn, "create"))
        try:
            if self.gate is not None:
                await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled.append(request.id)
            raise
        if request.kind == "preview":
            return self._previewed(request)
        if request.kind == "destroy":
            self.nodes.pop(request.stack, None)
            self.cpus_of.pop(request.stack, None)
            if self.left:
                return OperationResult("failed", request.fence, "leftovers", leftovers=tuple(self.left))
            return OperationResult("succeeded", request.fence, changes=Changes(delete=1), resources=())
        if self.refuse:
            kind, message = self.refuse.pop(0)
            return OperationResult("failed", request.fence, kind, message)
        slot = request.spec.slots[0]
        changed = self._previewed(request).plan[0]
        if changed["refused"]:
            return OperationResult("failed", request.fence, "consent", "this would replace it")
        self.cpus_of[request.stack] = slot.cpus
        node = self.nodes.setdefault(request.stack, FakeNode(request.stack, secrets["agent_token"]))
        off = request.spec.power == "stopped"
        if off:
            node.stop()
        else:
            if request.spec.boot > node.boot:
                node.draining = False
            node.off = node.dead = False
            node.generation, node.boot = slot.agent_generation, request.spec.boot
        node.incarnation = slot.incarnation
        on_event(OperationEvent(2, 0.0, "done", urn, "create"))
        nodes = ({
            "slot": 0, "id": f"{request.stack}-0-0", "internal_ip": "127.0.0.9", "external_ip": "127.0.0.1",
            "channel": None if off else {"kind": "local", "socket": request.stack}, "incarnation": 0,
        },)  # fmt: skip
        held = ({"urn": urn, "type": "skyinfra:local:Machine", "name": f"{request.stack}-0", "id": nodes[0]["id"]},)
        held[0]["inputs"] = {"cpus": slot.cpus}
        changes = Changes(create=2) if changed["op"] == "create" else Changes(update=1)
        return OperationResult("succeeded", request.fence, version=1, changes=changes, nodes=nodes, resources=held)

    # --- cloud
    name = "local"
    capabilities = frozenset({"stop", "autostop", "spot", "multi_node", "ports"})

    def standing(self):
        return Standing(True, f"this host has {self.cpus:g} CPUs")

    def check(self):
        return self.standing()

    def machines(self):
        return [
            Offer("local", "local", self.cpus, self.memory_gb, gpu, count, None, "local", (), 0.0, 0.0)
            for gpu, count in [(None, 0), *self.gpus.items()]
        ]

    def observe(self, stack=None, regions=()):
        return [
            {
                "id": f"{s}-0-0",
                "cluster": s,
                "slot": 0,
                "incarnation": node.incarnation,
                "state": "stopped" if node.off else "running",
                "stopped_by": node.stopped_by,
                "spot": False,
                "server": self.server_of.get(s, ""),
            }
            for s, node in self.nodes.items()
            if stack in (None, s)
        ]

    # --- channels
    async def connect(self, node, token):
        return FakeAgent(self, node["channel"]["socket"], token)


class FakeAgent:
    def __init__(self, world, stack, token):
        self._world, self._stack, self._token = world, stack, token

    def _node(self):
        node = self._world.nodes.get(self._stack)
        if node is None or node.dead:
            raise Unreachable("nobody listens")
        if node.token != self._token:
            raise AgentError(401, "unauthorized", "wrong token")
        return node

    async def aclose(self):
        pass

    async def health(self):
        node = self._node()
        state = "draining" if node.draining else "ready"
        return Health("0", node.boot, node.generation, state, 1.0, api=node.api)

    async def put_config(self, config):
        self._node().config = config

    async def put_file(self, digest, path):
        self._node().files[digest] = path.read_bytes()

    async def put_pack(self, pack, size):
        raw = b"".join([part async for part in pack])
        assert len(raw) == size
        self._node().chunks.update(chunks_in(raw))

    async def apply(self, files):
        node = self._node()
        absent = [t["digest"] for t in files.trees if t["digest"] not in node.files]
        if absent:
            return FilesMissing(trees=absent)
        named = [chunk for t in files.trees for chunk in named_in(node.files[t["digest"]])]
        missing = FilesMissing(chunks=[chunk for chunk in dict.fromkeys(named) if chunk not in node.chunks])
        if not missing.chunks:
            node.applied.extend(files.trees)
        return missing

    async def check_out(self, wanted):
        node = self._node()
        if wanted.ref == "nope":
            raise AgentError(400, "git", f"there is no branch, tag or commit 'nope' in {wanted.url}")
        node.checkouts.append(wanted)
        # a long one: it is asked for again
        return GitState(True, "c" * 40, tag=wanted.ref) if len(node.checkouts) > 1 else GitState(False)

    async def submit(self, job):
        node = self._node()
        for row in node.jobs:
            if row.key == job.key:
                return row.job_id
        if node.draining:
            raise AgentError(409, "draining", "going down")
        row = JobRow(len(node.jobs) + 1, job.name, job.user, "RUNNING", 1.0, started_at=1.0, key=job.key)
        node.jobs.append(row)
        node.submitted.append(job)
        node.note("job", dataclasses.asdict(row))
        return row.job_id

    async def jobs(self, ids=None):
        return list(self._node().jobs)

    async def cancel(self, job_id):
        node = self._node()
        for index, row in enumerate(node.jobs):
            if row.job_id == job_id:
                node.jobs[index] = dataclasses.replace(row, state="CANCELLED", ended_at=2.0)
                node.note("job", dataclasses.asdict(node.jobs[index]))
                return node.jobs[index]
        raise AgentError(404, "not_found", "no such job")

    @asynccontextmanager
    async def log(self, job_id, *, rank=0, offset=0, follow=False, tail=None):
        self._node()
        text = b"\xff raw \r bytes of job %d\n" % job_id

        async def chunks():
            yield text[offset:]

        yield type("Log", (), {"start_offset": offset, "state": "RUNNING", "chunks": chunks()})

    @asynccontextmanager
    async def job_files(self, job_id):
        self._node()

        async def chunks():
            yield b"tar"

        yield chunks()

    async def events(self, after=0):
        node = self._node()
        for at in itertools.count(after):
            while at >= len(node.events):
                changed = node.changed
                await changed.wait()
                self._node()
            yield node.events[at]

    async def drain(self, reason):
        self._node().draining = True

    async def undrain(self):
        self._node().draining = False

    async def run_hooks(self, event, key, *, auto):
        self._node().hooks.append((event, auto))
        if self._world.hold_hooks is not None:
            await self._world.hold_hooks.wait()
        return True


class Client:
    """Calls one server, and gives answers their plain form."""

    def __init__(self, http, world, services, home):
        self.http, self.world, self.services, self.home = http, world, services, home

    async def post(self, verb, body, **headers):
        return await self.http.post(f"/v1/requests/{verb}", json=body, headers=headers)

    async def submit(self, verb, **body):
        answer = await self.post(verb, body)
        assert answer.status_code == 202, answer.text
        return answer.json()["id"]

    async def result(self, request_id):
        answer = await self.http.get(f"/v1/requests/{request_id}/result?wait_s=10")
        return answer.json()

    async def do(self, verb, **body):
        return await self.result(await self.submit(verb, **body))

    async def read(self, verb, **body):
        answer = await self.post(verb, body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def launch(self, name="c", run="echo hi", **body):
        task = {"name": "t", "run": run, **body.pop("task", {})}
        return await self.do("launch", task=task, cluster_name=name, **body)

    async def state(self, name="c"):
        found = (await self.read("status", cluster_names=[name]))["result"]
        return found[0]["status"] if found else None

    async def until(self, condition, timeout_s=10):
        async with asyncio.timeout(timeout_s):
            while not (await condition() if asyncio.iscoroutinefunction(condition) else condition()):
                await asyncio.sleep(0.005)

    async def log_lines(self, request_id):
        text = (await self.http.get(f"/v1/requests/{request_id}/stream")).text
        return [json.loads(line) for line in text.splitlines()]


@asynccontextmanager
async def served(home, world, database_url=None, **settings):
    url = database_url or f"sqlite:///{home.database}"
    services = Services(
        Settings(home, database_url=url, user_id="u1", user_name="me", **settings),
        world,
        world.connect,
        {"local": world},
    )
    await services.start()
    listener = listen("127.0.0.1", 0)
    server = _Uvicorn(uvicorn.Config(build(services), lifespan="off", log_config=None, timeout_graceful_shutdown=1))
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    await server.listening.wait()
    token = home.token.read_text().strip()
    base = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        async with httpx2.AsyncClient(base_url=base, headers={"Authorization": f"Bearer {token}"}, timeout=15) as http:
            yield Client(http, world, services, home)
    finally:
        stopping = asyncio.create_task(services.stop())
        server.should_exit = True
        await asyncio.gather(serving, stopping)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def database_url(request, tmp_path):
    """An empty database of each kind: every scenario of this folder runs on both."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'home' / 'skyinfra.db'}"
    return request.getfixturevalue("postgres").database()


@pytest.fixture
def on_server(tmp_path, database_url):
    """Run `async def scenario(client)` against a fresh server."""

    def go(scenario, **settings):
        async def main():
            async with served(Home(tmp_path / "home"), World(), database_url, **settings) as client:
                await scenario(client)

        asyncio.run(asyncio.wait_for(main(), 30))

    return go


@pytest.fixture
def on_servers(tmp_path, database_url):
    """Run `async def scenario(start)`; each `async with start() as client` is a server's life on the same folder."""

    def go(scenario):
        async def main():
            world = World()

            def start(home="home", **settings):
                return served(Home(tmp_path / home), world, database_url, shutdown_grace_s=2.0, **settings)

            await scenario(start)

        asyncio.run(asyncio.wait_for(main(), 30))

    return go
