"""The agent process: takes its state folder, recovers, listens, and ends without ending a job.

Owns the wiring and the life of the process. One thread runs everything but file unpacking and the ending of processes.
"""

import asyncio
import fcntl
import json
import os
import shutil
import signal
import socket
import sys
import time
from typing import Any, Dict, List, NamedTuple, Optional

from skyinfra.runtime import disk, health, idle, procs
from skyinfra.runtime.autostop import NET_REASON, Autostop
from skyinfra.runtime.boundary import boundary
from skyinfra.runtime.cluster import Cluster
from skyinfra.runtime.files import Files
from skyinfra.runtime.git import Checkouts
from skyinfra.runtime.hooks import Hooks
from skyinfra.runtime.http import HttpServer
from skyinfra.runtime.jobqueue import JobQueue
from skyinfra.runtime.jobs import Jobs
from skyinfra.runtime.ledger import RANK_IDS, Ledger
from skyinfra.runtime.protocol import HOOKS_WAIT_S, Event, Health, NodeConfig, dump, load
from skyinfra.runtime.recovery import recover
from skyinfra.runtime.routes import Api
from skyinfra.runtime.say import say
from skyinfra.runtime.variables import Node
from skyinfra.runtime.watch import Watch
from skyinfra.runtime.zygote_link import ZygoteLink

LOCK_WAIT_S = 5.0
SWEEP_S = 1.0
HEALTH_S = 60.0
EXIT_LOCKED = 75
#: In the state folder: the node stopped itself, and why. Its cloud reads it and takes it away at the next start.
POWEROFF = "poweroff.json"
#: A burst of short jobs is not idleness.
IDLE_AFTER_S = 1.0


class Options(NamedTuple):
    state: str
    home: str
    socket: str
    boot: int
    generation: int
    cpus: float
    gpus: List[str]
    ip: str
    absolute_paths: bool
    version: str
    self_argv: List[str]
    """How to start another process of this very agent."""


def serve(options: Options) -> int:
    """Run until SIGTERM or `POST /v1/shutdown`. Returns the process's exit status."""
    disk.private_folder(options.state)
    lock = _take_lock(options.state)
    if lock < 0:
        print("error: another agent holds {}".format(options.state), file=sys.stderr)
        return EXIT_LOCKED
    try:
        with open(os.path.join(options.state, "token")) as f:
            token = f.read().strip()
    except OSError as exc:
        print("error: no token: {}".format(exc), file=sys.stderr)
        return 1
    if not token:
        print("error: the token file in {} is empty".format(options.state), file=sys.stderr)
        return 1
    for folder in ("jobs", "blobs"):
        disk.private_folder(os.path.join(options.state, folder))
    os.makedirs(options.home, mode=0o700, exist_ok=True)
    asyncio.run(Agent(options, token).run())
    return 0


def _take_lock(state: str) -> int:
    """-1 when a predecessor does not let go within `LOCK_WAIT_S`. Held until this process ends."""
    fd = os.open(os.path.join(state, "agent.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return fd
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(fd)
                return -1
            time.sleep(0.02)


class Agent:
    def __init__(self, options: Options, token: str) -> None:
        self.options, self.token = options, token
        self._idle_told: Optional[float] = None
        self._gpus: List[str] = list(options.gpus)
        """This node's devices, fit or not."""
        self._verdict = health.Verdict(health.READY, "", ())

    async def run(self) -> None:
        options = self.options
        self._stopping = asyncio.Event()
        loop = asyncio.get_event_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        boundary("agent.start.before")
        self._record()
        boundary("agent.start.recorded")
        self.watch = Watch()
        self.ledger = Ledger(os.path.join(options.state, "ledger.db"), self._on_event)
        node = Node(options.state, options.home, options.ip)
        queue = JobQueue(options.cpus, options.gpus)
        self.jobs = Jobs(node, self.ledger, queue, self.watch, shutil.which("bash") or "/bin/bash")
        self.cluster = Cluster(self.jobs, self._hello, lambda: asyncio.ensure_future(self._power_off()))
        self.hooks = Hooks(node, self.ledger, self.jobs.bash)
        self.autostop = Autostop(self.jobs, options.boot, lambda: self.watch.listened)
        self._load_config()
        self.zygote = ZygoteLink(options.self_argv, self.jobs.on_report, self.jobs.on_zygote_death)
        self.zygote.start()
        self.jobs.send_order = self.zygote.send
        hints = self._listen_for_hints()
        self.cluster.place(self.jobs.config)
        if recover(self.jobs, options.boot):
            self.hooks.release()
        self.autostop.configure(self.jobs.config)
        server = await self._listen()
        await self._connect()
        boundary("agent.start.made")
        sweeping = asyncio.ensure_future(self._sweep())
        nursing = asyncio.ensure_future(self._watch_health())
        await self._stopping.wait()
        sweeping.cancel()
        nursing.cancel()
        await server.close()
        await self.cluster.close()
        self.zygote.close()
        loop.remove_reader(hints)
        hints.close()
        self.ledger.close()

    def _hello(self) -> Dict[str, Any]:
        """What a worker says of itself to its head."""
        about = self.options
        return {"boot": about.boot, "generation": about.generation, "version": about.version, "gpus": self._gpus}

    def _record(self) -> None:
        """Before anything can connect: whoever finds the socket finds the record."""
        options = self.options
        record = dict(procs.identity(), version=options.version, boot=options.boot)
        record.update(generation=options.generation, socket=options.socket)
        disk.replace_json(os.path.join(options.state, "agent.json"), record)

    async def _listen(self) -> HttpServer:
        options = self.options
        files = Files(os.path.join(options.state, "blobs"), options.home, options.absolute_paths)
        checkouts = Checkouts(options.state, options.home, files.destination)
        self.about = Health(
            version=options.version,
            boot=options.boot,
            generation=options.generation,
            state="ready",
            uptime_s=0.0,
            pid=os.getpid(),
            python="{}.{}.{}".format(*sys.version_info[:3]),
        )
        api = Api(self.token, self.jobs, files, checkouts, self.hooks, self.about, self._set_config, self._stopping.set)
        server = HttpServer(api)
        await server.listen(_bind(options.socket))
        return server

    def _listen_for_hints(self) -> socket.socket:
        """Datagrams of supervisors. Bound by way of /proc, as they send: see `Supervisor._tell`."""
        disk.remove_file(os.path.join(self.options.state, "hints"))
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        folder = os.open(self.options.state, os.O_RDONLY | os.O_DIRECTORY)
        try:
            sock.bind("/proc/self/fd/{}/hints".format(folder))
        finally:
            os.close(folder)
        os.chmod(os.path.join(self.options.state, "hints"), 0o600)
        sock.setblocking(False)
        asyncio.get_event_loop().add_reader(sock, self._read_hints, sock)
        return sock

    def _read_hints(self, sock: socket.socket) -> None:
        while True:
            try:
                raw = sock.recv(4096)
            except BlockingIOError:
                return
            try:
                hint = json.loads(raw)
            except ValueError:
                continue  # hints are not believed anyway
            if isinstance(hint, dict):
                self.jobs.on_hint(hint)
                job_id = hint.get("job_id")
                if isinstance(job_id, int) and job_id >= RANK_IDS:
                    self.cluster.ranks.changed(job_id)

    def _on_event(self, event: Event) -> None:
        self.watch.changed(event.body.get("job_id") if event.kind in ("job", "rank") else None)
        if event.kind == "rank":
            # not from within the transaction's end: what hears of it may write as well
            asyncio.get_event_loop().call_soon(self.cluster.ranks.changed, event.body["job_id"])

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            try:
                self.jobs.sweep()
                self.cluster.look()
                self._tell_idle()
                over = self.autostop.look()
                self.about.sessions = self.autostop.sessions
                if over:
                    await self._power_off()
            except Exception as exc:  # the loop's outermost frame: a full disk today must not end tomorrow's sweeps
                say("sweep failed: {!r}".format(exc))

    async def _power_off(self) -> None:
        """The net under autostop: nobody listens, so the node stops itself. Its disk stays, and says why it stopped."""
        say(NET_REASON)
        self.jobs.drain(NET_REASON)
        self.cluster.end_workers()
        boundary("agent.poweroff.before")
        while not await self.hooks.run(self.jobs.config, self.autostop.event(), "node", True, HOOKS_WAIT_S):
            pass
        await self.jobs.stop_all()
        boundary("agent.poweroff.made")
        record = {"at": time.time(), "why": "autostop", "boot": self.options.boot}
        disk.replace_json(os.path.join(self.options.state, POWEROFF), record)
        boundary("agent.poweroff.recorded")
        self._stopping.set()

    def _tell_idle(self) -> None:
        """One event per stretch of idleness."""
        since = self.jobs.idle_since
        idle_s = time.monotonic() - self.jobs.idle_from
        if self.jobs.idle and idle_s >= IDLE_AFTER_S and self._idle_told != since:
            self.ledger.set_meta("idle", idle.stamp(since, idle_s))  # for the next agent: the time of day may jump
            self.ledger.add_event("idle", {"idle_since": since})
            self._idle_told = since

    async def _connect(self) -> None:
        """As the last configuration says. A place that is no longer ours is for the server to put right."""
        try:
            await self.cluster.connect()
        except ValueError as exc:
            say(str(exc))
        self.about.link_port = self.cluster.port

    async def _set_config(self, config: NodeConfig, given: "set[str]") -> None:
        value = {name: item for name, item in dump(config).items() if name in given}
        disk.replace_json(os.path.join(self.options.state, "config.json"), value)
        self.jobs.config = config
        cpus = config.cpus if "cpus" in given else self.jobs.queue.cpus
        self._gpus = config.gpus or self._gpus  # none named: what this machine was started with
        self._offer(cpus)
        self.cluster.place(config)
        self.autostop.configure(config)
        await self.cluster.connect()
        self.about.link_port = self.cluster.port

    def _offer(self, cpus: float) -> None:
        """Let jobs have the CPUs and every device that is fit. What runs goes on."""
        self.jobs.queue.resize(cpus, [one for one in self._gpus if one not in self._verdict.bad])
        bad = self._verdict.bad
        self.jobs.queue.lacks = "{}: {}".format(self._verdict.state, self._verdict.reason) if bad else ""
        self.jobs.kick()

    async def _watch_health(self) -> None:
        """Look at the devices now and every minute. A change is an event; a bad device takes no new job."""
        told: Optional[health.Verdict] = None
        looked = -HEALTH_S
        while True:
            # in short sleeps: how long a minute lasts is only known when the server has pushed its configuration
            if time.monotonic() - looked < min(HEALTH_S, self.jobs.config.minute_s):
                await asyncio.sleep(SWEEP_S)
                continue
            looked = time.monotonic()
            try:
                gpus = list(self._gpus)
                found = await asyncio.get_event_loop().run_in_executor(None, health.look, gpus) if gpus else None
                if found is not None and found != told:
                    self._verdict = found
                    self._offer(self.jobs.queue.cpus)
                    body = {"slot": self.jobs.config.slot, "state": found.state, "reason": found.reason}
                    self.ledger.add_event("node_health", body)
                    self.cluster.note_health(found)
                    told = found
            except Exception as exc:  # the loop's outermost frame, as in `_sweep`
                say("looking at the node's health failed: {!r}".format(exc))

    def _load_config(self) -> None:
        """The last pushed one, but for capacity: this start's options are newer than it."""
        value: Optional[Dict[str, Any]] = disk.read_json(os.path.join(self.options.state, "config.json"))
        if value is not None:
            self.jobs.config = load(NodeConfig, value)


def _bind(path: str) -> socket.socket:
    """A listening unix socket, 0600 in a 0700 folder, in place of a dead predecessor's. Raises `OSError`."""
    disk.private_folder(os.path.dirname(path))
    disk.remove_file(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)
    try:
        sock.bind(path)
    finally:
        os.umask(mask)
    sock.listen(128)
    sock.setblocking(False)
    return sock
