"""The node agent's wire: HTTP/1.1 + JSON under ``/v1``, bearer token, on a unix socket or loopback.

Standard library only, Python >= 3.8: this file is in the agent's zipapp, and the server imports it for its half.
A newer peer may add fields: readers ignore what they do not know.

======================================  ==============================================================================
``GET /v1/health``                      `Health`; needs the token like every call
``PUT /v1/config``                      `NodeConfig`; idempotent
``HEAD|PUT /v1/files/{sha256}``         a tree's manifest (`tree.py`); 200 when already there; a wrong digest is 422
``POST /v1/files``                      a pack of chunks (`chunks.py`), streamed; of one that breaks off, or has a wrong
                                        chunk in it (422), the whole chunks before are kept
``POST /v1/files/apply``                `FilesApply` -> `FilesMissing`; idempotent; answers when everything is in place,
                                        or says what to send before: send it and ask again
``POST /v1/files/git``                  `GitCheckout` -> `GitState`; not done after `GIT_WAIT_S`: ask again, it goes on
``POST /v1/jobs``                       `JobSubmit` -> ``{"job_id": int}``; same `key` = same id; 409 `draining`
``GET /v1/jobs?ids=1,2``                ``{"jobs": [JobRow]}``, oldest first
``GET /v1/jobs/{id}``                   `JobRow`; 404
``POST /v1/jobs/{id}/cancel``           `JobRow`; returns when the job has ended; finished jobs are left alone
``GET /v1/jobs/{id}/log``               ``?rank=N&offset=0&follow=0|1&tail=N``: raw bytes of the job's log, or of one
                                        rank's. Headers
                                        `X-Start-Offset`, `X-Job-State`; when following, chunked until the job is final,
                                        then the trailer-less end; the next offset = start offset + bytes received
``GET /v1/jobs/{id}/files``             a tar of the job's log folder (run.log, setup.log, per rank)
``POST /v1/drain``                      ``{"reason": str}``: new jobs are refused with 409
``POST /v1/hooks``                      ``{"event": stop|preemption|down, "key": str, "auto": bool}``: run what is bound
                                        to it -> ``{"done": bool}`` after at most `HOOKS_WAIT_S`; the same key joins
                                        it, another one is 409 `claimed`; undraining gives the claim back
``DELETE /v1/drain``                    accepted again
``GET /v1/events?after=seq``            NDJSON of `Event`, never ends; heartbeats every `HEARTBEAT_S`
``POST /v1/shutdown``                   ``{"kill_jobs": bool}``: the agent ends (and with it, if asked, every job)
======================================  ==============================================================================

Errors: status >= 400 with ``{"type": str, "message": str}``; types: ``unauthorized``, ``not_found``, ``bad_request``,
``draining``, ``claimed``, ``digest``, ``unsafe_path``, ``no_space``, ``git``, ``internal``.
"""

from dataclasses import asdict, dataclass, field, fields
from typing import Any, Dict, List, Optional, Type, TypeVar

API_VERSION = 1
#: The oldest agent that a server of this version talks to.
MIN_AGENT_API = 1
HEARTBEAT_S = 5.0
#: Between head and workers: how often each says that it is there, and how long silence means nothing.
LINK_BEAT_S = 2.0
LINK_SILENCE_S = 5.0
#: A worker unheard for so long is said to be LOST; after the second time the jobs with a rank on it fail.
NODE_LOST_S = 4.0
RANK_LOST_S = 12.0
HOOKS_WAIT_S = 10.0
GIT_WAIT_S = 10.0

#: SkyPilot's job states, in its order; the first four are not final.
JOB_STATES = (
    "INIT",
    "PENDING",
    "SETTING_UP",
    "RUNNING",
    "FAILED_DRIVER",
    "SUCCEEDED",
    "FAILED",
    "FAILED_SETUP",
    "CANCELLED",
)
FINAL_STATES = frozenset(JOB_STATES[4:])

T = TypeVar("T")


def load(cls: Type[T], value: Dict[str, Any]) -> T:
    """Build a wire type from JSON, dropping fields of a newer peer. Raises `TypeError` when a needed one is missing."""
    known = {f.name for f in fields(cls)}  # type: ignore[arg-type]
    return cls(**{k: v for k, v in value.items() if k in known})


def dump(value: Any) -> Dict[str, Any]:
    """The JSON form of a wire type."""
    return asdict(value)


@dataclass
class Health:
    version: str
    boot: int
    generation: int
    state: str
    """``ready`` or ``draining``."""
    uptime_s: float
    pid: int = 0
    api: int = API_VERSION
    python: str = ""
    sessions: int = 0
    """SSH sessions with a terminal, where autostop waits for them."""
    link_port: int = 0
    """Where the head listens for its workers; 0 = it does not."""


@dataclass
class NodeConfig:
    """Pushed by the server after each `up`."""

    node_table: List[Dict[str, Any]] = field(default_factory=list)
    """``[{slot, ip, port, cpus, gpus}]``, head first; `port` is where the head listens for its workers, 0 = it chooses
    (and says so in `Health.link_port`)."""
    slot: int = 0
    """This node's own place in it."""
    cluster: Dict[str, Any] = field(default_factory=dict)
    """``{cluster_name, cloud, region, zone}``: becomes SKYPILOT_CLUSTER_INFO."""
    cpus: float = 1.0
    gpus: List[str] = field(default_factory=list)
    """Device ids for CUDA_VISIBLE_DEVICES, this node's share."""
    autostop: Optional[Dict[str, Any]] = None
    """``{idle_minutes, down, wait_for, hook, hook_timeout, setting}``; idle_minutes < 0 = off. Another `setting` than
    before restarts the idle clock."""
    hooks: List[Dict[str, Any]] = field(default_factory=list)
    """``[{run, events, timeout}]``: what runs before the node is stopped or removed."""
    minute_s: float = 60.0
    tls: Optional[Dict[str, Any]] = None
    """``{ca, cert, key}``, PEM: how head and workers know each other. A node's certificate is for ``node-<slot>``."""


@dataclass
class FilesApply:
    """Put trees in their places, over what is there: a file that differs is replaced by rename, others stay."""

    trees: List[Dict[str, str]] = field(default_factory=list)
    """``[{digest, dest, kind}]``: kind ``dir`` goes into `dest`, ``file`` is a tree of one file that becomes `dest`.
    A relative or ``~/`` destination lies under the node's HOME; an absolute one outside it is refused (`unsafe_path`)
    unless the agent was started with ``--absolute-paths``."""


@dataclass
class FilesMissing:
    """Nothing in it: everything is in place. Of many chunks only the first are named."""

    trees: List[str] = field(default_factory=list)
    """Digests of manifests. While one is missing, nothing is said of chunks."""
    chunks: List[str] = field(default_factory=list)
    """Digests in hex, in the order in which the files need them."""


@dataclass
class GitCheckout:
    """A repository to be fetched and checked out at `dest`, over what is there."""

    url: str
    dest: str
    ref: str = ""
    """A branch, a tag or a commit; empty: the repository's own branch."""
    commit: str = ""
    """What `ref` was when another node asked: all get the same."""
    token: str = ""
    ssh_key: str = ""
    """A private key. Both over the authenticated channel only, and kept while git runs."""


@dataclass
class GitState:
    done: bool
    commit: str = ""
    branch: str = ""
    tag: str = ""


@dataclass
class JobSubmit:
    key: str
    """Idempotency key: the request id."""
    run: Optional[str]
    setup: Optional[str] = None
    name: Optional[str] = None
    user: str = ""
    ranks: List[Dict[str, Any]] = field(default_factory=lambda: [{"slot": 0, "env": {}, "ip": "127.0.0.1"}])
    """One entry per node that takes part: ``{slot, env}``; its place in the list is its rank. `slot` null in all of
    them: the head chooses the nodes, and ranks follow the order of their slots."""
    envs: Dict[str, str] = field(default_factory=dict)
    secrets: Dict[str, str] = field(default_factory=dict)
    """Values, over the authenticated channel only; the agent keeps envs and secrets in one 0600 file per job, removed
    at its end, and never in the ledger."""
    demand: Dict[str, float] = field(default_factory=lambda: {"cpus": 0.5, "gpus": 0})
    """Per node. 0.5 CPU unless the task asks for GPUs, too, as in SkyPilot."""
    task_id: str = ""
    """SKYPILOT_TASK_ID without the job id: the agent appends ``_<job id>``; empty = made up from the clock."""
    metadata: Dict[str, Any] = field(default_factory=dict)
    """Kept and given back as it is (git commit, links)."""


@dataclass
class JobRow:
    """A ledger row. Times are seconds since the epoch; None = not yet."""

    job_id: int
    name: Optional[str]
    user: str
    state: str
    submitted_at: float
    started_at: Optional[float] = None
    ended_at: Optional[float] = None
    exit_codes: List[int] = field(default_factory=list)
    """One per rank; of setup (of every node) when the state is FAILED_SETUP; negative = killed by that signal; 137 =
    ended because another rank failed, 255 = its node was lost."""
    reason: str = ""
    resources: str = ""
    """As SkyPilot prints it: ``1x[CPU:0.5]`` or ``2x[H100:8]``."""
    log_path: str = ""
    """Folder on the node, with ``~``: ``~/sky_logs/<id>-<name>``."""
    pid: Optional[int] = None
    """The supervisor."""
    key: str = ""
    metadata: Dict[str, Any] = field(default_factory=dict)


@dataclass
class Event:
    """One line of ``GET /v1/events``. `seq` grows without gaps and survives a restart of the agent."""

    seq: int
    at: float
    kind: str
    """``job`` (body: JobRow), ``heartbeat`` (Health; its seq is the latest, it takes none), ``idle`` ({idle_since}),
    ``node_health`` ({slot, state: READY, CORDONED or LOST, reason}), ``autostop`` ({event, setting, idle_s}: the idle
    time is over), ``agent`` ({text})."""
    body: Dict[str, Any] = field(default_factory=dict)


# --- between head and workers -----------------------------------------------------------------------------------------
#
# A worker dials the head (TLS, both show a certificate of the cluster's CA) and keeps that one connection. Both ways go
# frames: two lengths (32 bits each, big-endian), a `Frame` as JSON, then raw bytes (of a log). The head tells, the
# worker reports; what was in the air when a connection broke is said again by the head, and nothing is done twice.
#
# head -> worker: ``welcome`` {keys: [str]} (the ranks that are still wanted; others end), ``start`` (`RankOrder`; one
# whose key is known starts nothing), ``ask``, ``go``, ``end``, ``follow`` (the log from `offset` on), ``poweroff``,
# ``beat``
# worker -> head: ``hello`` {boot, generation, version, gpus}, ``state`` (`RankState`), ``log`` (bytes at `offset`),
# ``health`` {state, reason, bad}, ``beat``

MAX_FRAME_BYTES = 16 << 20


@dataclass
class Frame:
    kind: str
    key: str = ""
    """Of the rank it is about."""
    offset: int = 0
    body: Dict[str, Any] = field(default_factory=dict)


@dataclass
class RankOrder:
    """One node's part of a job: its setup, and then its rank if it has one."""

    key: str
    name: str
    """``<id>-<name>`` of the job, under ``~/sky_logs``."""
    log: str
    """File in that folder."""
    labels: Dict[str, str] = field(default_factory=dict)
    """``{setup, run}``: what stands before each line, with ``{pid}``."""
    setup: Optional[str] = None
    run: Optional[str] = None
    user: str = ""
    envs: Dict[str, str] = field(default_factory=dict)
    """With secrets: kept in one 0600 file until the rank begins."""
    setup_env: Dict[str, str] = field(default_factory=dict)
    run_env: Dict[str, str] = field(default_factory=dict)
    cpus: float = 0.0
    devices: List[List[Any]] = field(default_factory=list)
    """``[[device, how much of it]]``."""


@dataclass
class RankState:
    key: str
    state: str = ""
    """As `JobRow.state`; empty = this node knows no such rank."""
    ready: bool = False
    """Its setup is done and it waits for ``go``."""
    exit_codes: List[int] = field(default_factory=list)
    reason: str = ""
    log_bytes: int = 0
    """All there will be, once `state` is final."""
