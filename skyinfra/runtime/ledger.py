"""The job ledger: SQLite, one writer, a transition and its event in one transaction.

Owns what a job *is* according to this node. It holds no environment variables, no secrets and no script text; those lie
in the job's folder. Refuses transitions that `ALLOWED` does not list and updates whose guard no longer holds.

::

    INIT -> PENDING -> SETTING_UP -> RUNNING -> SUCCEEDED | FAILED
                                 `-> FAILED_SETUP | SUCCEEDED (nothing to run)
    any unfinished state -> CANCELLED | FAILED_DRIVER

A rank of a job that runs on several nodes is a row as well, on its own node, with an id from `RANK_IDS` on. Nobody but
`Ranks` sees those: no list has them, and what happens to them is no event.
"""

import json
import sqlite3
import time
from typing import Any, Callable, Dict, FrozenSet, Iterable, List, NamedTuple, Optional, Sequence, Tuple

from skyinfra.runtime.jobqueue import Demand, Placement, Share, demand_of
from skyinfra.runtime.protocol import FINAL_STATES, Event, JobRow, dump

_ENDS = frozenset({"CANCELLED", "FAILED_DRIVER"})
ALLOWED: Dict[str, FrozenSet[str]] = {
    "INIT": _ENDS | {"PENDING"},
    "PENDING": _ENDS | {"SETTING_UP", "RUNNING"},
    "SETTING_UP": _ENDS | {"RUNNING", "FAILED_SETUP", "SUCCEEDED"},
    "RUNNING": _ENDS | {"SUCCEEDED", "FAILED"},
    "SUCCEEDED": frozenset(),
    "FAILED": frozenset(),
    "FAILED_SETUP": frozenset(),
    "FAILED_DRIVER": frozenset(),
    "CANCELLED": frozenset(),
}
#: Rows from here on are ranks.
RANK_IDS = 1 << 40
#: Events kept for late readers; whoever is further behind reads ``GET /v1/jobs`` instead.
EVENTS_KEPT = 20000

_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    job_id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, name TEXT, user TEXT NOT NULL, state TEXT NOT NULL,
    submitted_at REAL NOT NULL, started_at REAL, ended_at REAL, exit_codes TEXT NOT NULL DEFAULT '[]',
    reason TEXT NOT NULL DEFAULT '', resources TEXT NOT NULL, log_path TEXT NOT NULL, pid INTEGER,
    metadata TEXT NOT NULL, cpus REAL NOT NULL, gpus REAL NOT NULL, ranks TEXT NOT NULL, task_id TEXT NOT NULL,
    has_setup INTEGER NOT NULL, has_run INTEGER NOT NULL,
    attempt INTEGER NOT NULL DEFAULT 0, share TEXT, cancel_at REAL
);
CREATE INDEX IF NOT EXISTS jobs_unfinished ON jobs (state) WHERE state IN ('INIT', 'PENDING', 'SETTING_UP', 'RUNNING');
CREATE TABLE IF NOT EXISTS events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, kind TEXT NOT NULL, body TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""
_ROW = "job_id,name,user,state,submitted_at,started_at,ended_at,exit_codes,reason,resources,log_path,pid,key,metadata"
_PLAN = "job_id,state,name,user,cpus,gpus,ranks,task_id,has_setup,has_run,attempt,share,cancel_at,pid,log_path"
_UNFINISHED = "state IN ('INIT', 'PENDING', 'SETTING_UP', 'RUNNING')"


class NewJob(NamedTuple):
    """What `insert` needs."""

    job_id: int
    key: str
    name: Optional[str]
    user: str
    resources: str
    log_path: str
    metadata: Dict[str, Any]
    demand: Demand
    ranks: List[Dict[str, Any]]
    task_id: str
    has_setup: bool
    has_run: bool


class Plan(NamedTuple):
    """An unfinished job as the agent runs it. `attempt` 0: nothing was ever asked to run it."""

    job_id: int
    state: str
    name: Optional[str]
    user: str
    demand: Demand
    ranks: List[Dict[str, Any]]
    task_id: str
    has_setup: bool
    has_run: bool
    attempt: int
    placement: Optional[Placement]
    cancel_at: Optional[float]
    pid: Optional[int]
    log_path: str

    @property
    def is_gang(self) -> bool:
        """Whether it runs as ranks, rather than as a process of this very node."""
        return is_gang(self.ranks)


def is_gang(ranks: List[Dict[str, Any]]) -> bool:
    """A server that knows of several nodes names no slot, or others than the head's."""
    return len(ranks) != 1 or ranks[0].get("slot", 0) != 0


class Ledger:
    """Open once per agent, used from its one thread. `on_event` is called after each commit."""

    def __init__(self, path: str, on_event: Callable[[Event], None]) -> None:
        self._db = sqlite3.connect(path, isolation_level=None, timeout=10)
        self._db.execute("PRAGMA journal_mode=WAL")
        # NORMAL: a killed process loses nothing; after a power loss `boot_id` tells that every job is gone anyway
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.executescript(_SCHEMA)
        self._on_event = on_event

    def close(self) -> None:
        self._db.close()

    def next_id(self) -> int:
        return self._one("SELECT COALESCE(MAX(job_id), 0) + 1 FROM jobs WHERE job_id < ?", RANK_IDS)[0]

    def next_rank_id(self) -> int:
        return self._one("SELECT COALESCE(MAX(job_id), ?) + 1 FROM jobs WHERE job_id >= ?", RANK_IDS, RANK_IDS)[0]

    def ranks(self) -> List[JobRow]:
        """The rows of ranks."""
        query = "SELECT {} FROM jobs WHERE job_id >= ? ORDER BY job_id".format(_ROW)
        return [_job_row(r) for r in self._db.execute(query, (RANK_IDS,))]

    def id_for_key(self, key: str) -> Optional[int]:
        found = self._one("SELECT job_id FROM jobs WHERE key = ?", key)
        return found[0] if found else None

    def row(self, job_id: int) -> Optional[JobRow]:
        found = self._one("SELECT {} FROM jobs WHERE job_id = ?".format(_ROW), job_id)
        return _job_row(found) if found else None

    def rows(self, job_ids: Optional[Sequence[int]] = None) -> List[JobRow]:
        """All, or those of `job_ids` that exist; oldest first."""
        if job_ids is None:
            query = "SELECT {} FROM jobs WHERE job_id < ? ORDER BY job_id".format(_ROW)
            return [_job_row(r) for r in self._db.execute(query, (RANK_IDS,))]
        found = (self.row(job_id) for job_id in sorted(set(job_ids)))
        return [row for row in found if row is not None]

    def plan(self, job_id: int) -> Optional[Plan]:
        found = self._one("SELECT {} FROM jobs WHERE job_id = ?".format(_PLAN), job_id)
        return _plan(found) if found else None

    def rank_count(self, job_id: int) -> int:
        """0 for a job that does not exist."""
        found = self._one("SELECT ranks FROM jobs WHERE job_id = ?", job_id)
        return len(json.loads(found[0])) if found else 0

    def unfinished(self) -> List[Plan]:
        """Oldest first."""
        query = "SELECT {} FROM jobs WHERE {} ORDER BY job_id".format(_PLAN, _UNFINISHED)
        return [_plan(r) for r in self._db.execute(query)]

    def insert(self, job: NewJob) -> JobRow:
        """A new PENDING row and its event. Its files are on disk already. Raises `sqlite3.Error`."""
        with self._transaction() as events:
            self._db.execute(
                "INSERT INTO jobs (job_id,key,name,user,state,submitted_at,resources,log_path,metadata,cpus,gpus,ranks,"
                "task_id,has_setup,has_run) VALUES (?,?,?,?,'PENDING',?,?,?,?,?,?,?,?,?,?)",
                (
                    job.job_id,
                    job.key,
                    job.name,
                    job.user,
                    time.time(),
                    job.resources,
                    job.log_path,
                    json.dumps(job.metadata),
                    job.demand.cpus,
                    job.demand.gpus,
                    json.dumps(job.ranks),
                    job.task_id,
                    job.has_setup,
                    job.has_run,
                ),
            )
            return self._job_event(job.job_id, events)

    def intend(self, job_id: int, attempt: int, placement: Placement) -> bool:
        """Write down that attempt `attempt` of a waiting job is about to be started. False: it is no longer waiting."""
        done = self._db.execute(
            "UPDATE jobs SET attempt = ?, share = ? WHERE job_id = ? AND state = 'PENDING' AND cancel_at IS NULL"
            " AND attempt < ?",
            (attempt, json.dumps(placement), job_id, attempt),
        )
        return done.rowcount == 1

    def withdraw(self, job_id: int, attempt: int) -> None:
        """The intended attempt can no longer begin: the job waits again."""
        self._db.execute(
            "UPDATE jobs SET share = NULL WHERE job_id = ? AND state = 'PENDING' AND attempt = ?", (job_id, attempt)
        )

    def want_cancel(self, job_id: int) -> None:
        """Remembered, so that a successor carries it out."""
        self._db.execute(
            "UPDATE jobs SET cancel_at = ? WHERE job_id = ? AND cancel_at IS NULL AND {}".format(_UNFINISHED),
            (time.time(), job_id),
        )

    def move(self, job_id: int, seen: str, state: str, **fields: Any) -> Optional[JobRow]:
        """From `seen` to `state`, with its event. None: the job is no longer in `seen`.

        Raises `ValueError` for a transition that does not exist.
        """
        if state not in ALLOWED[seen]:
            raise ValueError("job {} cannot go from {} to {}".format(job_id, seen, state))
        if "exit_codes" in fields:
            fields["exit_codes"] = json.dumps(fields["exit_codes"])
        if state in FINAL_STATES:
            fields.setdefault("ended_at", time.time())
        names = ["state", *fields]
        query = "UPDATE jobs SET {} WHERE job_id = ? AND state = ?".format(", ".join(n + " = ?" for n in names))
        with self._transaction() as events:
            if self._db.execute(query, (state, *fields.values(), job_id, seen)).rowcount == 0:
                return None
            return self._job_event(job_id, events)

    def last_end(self) -> Optional[float]:
        """When the last job ended."""
        return self._one("SELECT MAX(ended_at) FROM jobs WHERE job_id < ?", RANK_IDS)[0]

    def add_event(self, kind: str, body: Dict[str, Any]) -> None:
        with self._transaction() as events:
            self._event(kind, body, events)

    def last_seq(self) -> int:
        return self._one("SELECT COALESCE(MAX(seq), 0) FROM events")[0]

    def events_after(self, seq: int, limit: int = 500) -> List[Event]:
        query = "SELECT seq, at, kind, body FROM events WHERE seq > ? ORDER BY seq LIMIT ?"
        return [Event(s, at, kind, json.loads(body)) for s, at, kind, body in self._db.execute(query, (seq, limit))]

    def meta(self, name: str) -> Optional[str]:
        found = self._one("SELECT value FROM meta WHERE name = ?", name)
        return found[0] if found else None

    def set_meta(self, name: str, value: Optional[str]) -> None:
        if value is None:
            self._db.execute("DELETE FROM meta WHERE name = ?", (name,))
        else:
            self._db.execute("INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?)", (name, value))

    def _one(self, query: str, *values: Any) -> Any:
        return self._db.execute(query, values).fetchone()

    def _job_event(self, job_id: int, events: List[Event]) -> JobRow:
        row = self.row(job_id)
        assert row is not None  # written in this very transaction
        if job_id >= RANK_IDS:
            events.append(Event(0, time.time(), "rank", dump(row)))  # for this process, not for readers
        else:
            self._event("job", dump(row), events)
        return row

    def _event(self, kind: str, body: Dict[str, Any], events: List[Event]) -> None:
        at = time.time()
        query = "INSERT INTO events (at, kind, body) VALUES (?, ?, ?)"
        seq = self._db.execute(query, (at, kind, json.dumps(body))).lastrowid
        assert seq is not None
        if seq % 1000 == 0:
            self._db.execute("DELETE FROM events WHERE seq <= ?", (seq - EVENTS_KEPT,))
        events.append(Event(seq, at, kind, body))

    def _transaction(self) -> "_Transaction":
        return _Transaction(self._db, self._on_event)


class _Transaction:
    """BEGIN IMMEDIATE … COMMIT, and only then the events; ROLLBACK on any exception."""

    def __init__(self, db: sqlite3.Connection, on_event: Callable[[Event], None]) -> None:
        self._db, self._on_event = db, on_event
        self._events: List[Event] = []

    def __enter__(self) -> List[Event]:
        self._db.execute("BEGIN IMMEDIATE")
        return self._events

    def __exit__(self, kind: Any, *_: Any) -> None:
        if kind is not None:
            if self._db.in_transaction:  # a full disk has rolled back already
                self._db.execute("ROLLBACK")
            return
        self._db.execute("COMMIT")
        for event in self._events:
            self._on_event(event)


def _job_row(r: Tuple[Any, ...]) -> JobRow:
    row = JobRow(*r)
    row.exit_codes, row.metadata = json.loads(r[7]), json.loads(r[13])
    return row


def _plan(r: Tuple[Any, ...]) -> Plan:
    ranks = json.loads(r[6])
    return Plan(
        job_id=r[0],
        state=r[1],
        name=r[2],
        user=r[3],
        demand=demand_of(r[4], r[5], ranks),
        ranks=ranks,
        task_id=r[7],
        has_setup=bool(r[8]),
        has_run=bool(r[9]),
        attempt=r[10],
        placement=_placement(json.loads(r[11])) if r[11] else None,
        cancel_at=r[12],
        pid=r[13],
        log_path=r[14],
    )


def _placement(value: List[Any]) -> Placement:
    if value and not isinstance(value[0], list):  # of an agent that knew one node: its share alone
        return ((0, _share(value)),)
    return tuple((slot, _share(share)) for slot, share in value)


def _share(value: Iterable[Any]) -> Share:
    cpus, devices = value
    return Share(cpus, tuple((str(d), float(a)) for d, a in devices))
