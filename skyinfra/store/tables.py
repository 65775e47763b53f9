"""The tables of the server's database, in SQLAlchemy Core. Migrations make them; queries live beside this file.

Secrets appear in two columns only, both sealed: `requests.sealed_body` and `secrets.sealed`. Times are seconds since
the epoch. JSON columns hold versioned or plain values, never pickles.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData()

#: SQLite only counts up by itself on a column it calls INTEGER.
_Counter = BigInteger().with_variant(Integer, "sqlite")

requests = Table(
    "requests",
    metadata,
    Column("seq", _Counter, primary_key=True, autoincrement=True),
    Column("id", String(36), nullable=False, unique=True),
    Column("idempotency_key", String(200), nullable=False, unique=True),
    Column("body_digest", String(64), nullable=False),  # keyed: a plain hash of a body would betray a weak secret
    Column("verb", String(40), nullable=False),
    Column("status", String(20), nullable=False),
    Column("workspace", String(80), nullable=False),
    Column("user_id", String(80), nullable=False),
    Column("user_name", String(200), nullable=False),
    Column("cluster_name", Text, nullable=True),
    Column("internal", Boolean, nullable=False),
    Column("entrypoint", Text, nullable=False),
    Column("sealed_body", LargeBinary, nullable=True),  # None once the request is final
    Column("display", JSON, nullable=False),  # the body without values of envs and secrets
    Column("blobs", JSON, nullable=False),  # digests the request needs: the collector leaves them alone
    Column("created_at", Float, nullable=False),
    Column("finished_at", Float, nullable=True),
    Column("cancel_requested", Boolean, nullable=False),
    Column("parked_until", Float, nullable=True),
    Column("status_msg", Text, nullable=False),
    Column("result", JSON, nullable=True),
    Column("error", JSON, nullable=True),
)
Index("requests_by_status", requests.c.status, requests.c.seq)

steps = Table(
    "steps",
    metadata,
    Column("request_id", String(36), ForeignKey("requests.id", ondelete="CASCADE"), primary_key=True),
    Column("name", String(80), primary_key=True),
    Column("position", Integer, nullable=False),
    Column("state", String(10), nullable=False),  # began | done | failed
    Column("began_at", Float, nullable=False),
    Column("ended_at", Float, nullable=True),
    Column("result", JSON, nullable=True),
)

operations = Table(
    "operations",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("request_id", String(36), nullable=False),
    Column("step", String(80), nullable=False),
    Column("cluster_id", String(32), nullable=False),
    Column("stack", String(80), nullable=False),
    Column("kind", String(20), nullable=False),
    Column("state", String(20), nullable=False),  # running | succeeded | failed | cancelled | lost
    Column("fence", Integer, nullable=False),  # grows per stack: an older worker's result is refused
    Column("owner", String(80), nullable=False),  # pid and start ticks of the server that started it
    Column("boot_id", String(40), nullable=False),
    Column("lease_until", Float, nullable=False),
    Column("version", Integer, nullable=True),
    Column("changes", JSON, nullable=False),
    Column("failure_kind", String(20), nullable=True),
    Column("message", Text, nullable=False),
    Column("started_at", Float, nullable=False),
    Column("finished_at", Float, nullable=True),
)
Index("operations_by_request", operations.c.request_id)
Index("operations_by_stack", operations.c.stack, operations.c.fence)

updates = Table(
    "updates",
    metadata,
    Column("seq", _Counter, primary_key=True, autoincrement=True),
    Column("workspace", String(80), nullable=False),
    Column("cluster_name", Text, nullable=False),
    Column("number", Integer, nullable=False),  # counts through every life of the name: `down` does not reset it
    Column("cluster_id", String(32), nullable=False),
    Column("stack", String(80), nullable=False),
    Column("operation_id", String(40), nullable=False, unique=True),
    Column("request_id", String(36), nullable=False),
    Column("verb", String(40), nullable=False),
    Column("command", Text, nullable=False),
    Column("user_id", String(80), nullable=False),
    Column("user_name", String(200), nullable=False),
    Column("kind", String(20), nullable=False),
    Column("state", String(20), nullable=False),  # as the operation's
    Column("version", Integer, nullable=True),  # the stack's own, counted by the engine
    Column("changes", JSON, nullable=False),
    Column("failure_kind", String(20), nullable=True),
    Column("message", Text, nullable=False),
    Column("spec", JSON, nullable=False),
    Column("resources", JSON, nullable=True),  # what the stack held afterwards; None: nobody knows
    Column("started_at", Float, nullable=False),
    Column("finished_at", Float, nullable=True),
    UniqueConstraint("workspace", "cluster_name", "number", name="updates_number"),
)
Index("updates_by_end", updates.c.finished_at)

clusters = Table(
    "clusters",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("workspace", String(80), nullable=False),
    Column("name", Text, nullable=False),
    Column("user_id", String(80), nullable=False),
    Column("user_name", String(200), nullable=False),
    Column("stack", String(80), nullable=False, unique=True),
    Column("status", String(20), nullable=False),
    Column("status_updated_at", Float, nullable=False),
    Column("init_kind", String(20), nullable=True),
    Column("status_reason", Text, nullable=False),
    Column("generation", Integer, nullable=False),  # guard of every update: zero rows changed means the world moved on
    Column("spec", JSON, nullable=False),
    Column("nodes", JSON, nullable=False),
    Column("resources", JSON, nullable=False),
    Column("launched_at", Float, nullable=True),
    Column("last_use", Text, nullable=False),
    Column("ever_up", Boolean, nullable=False),
    Column("autostop", Integer, nullable=False),  # idle minutes, -1 = off
    Column("to_down", Boolean, nullable=False),
    Column("config_hash", String(64), nullable=False),
    Column("creation_yaml", Text, nullable=False),  # values of envs and secrets left out
    Column("creation_command", Text, nullable=False),
    Column("cordoned", String(40), nullable=True),  # why nobody tries to bring the agent back any more
    Column("revivals", JSON, nullable=False),  # when an agent was brought back, of late
    Column("events_seq", Integer, nullable=False),  # the last event of the agent's that is mirrored
    Column("created_at", Float, nullable=False),
    Column("node_health", JSON, nullable=True),  # by slot: {state, reason} as the node's agent last said
    UniqueConstraint("workspace", "name", name="clusters_name"),
)

cluster_events = Table(
    "cluster_events",
    metadata,
    Column("seq", _Counter, primary_key=True, autoincrement=True),
    Column("cluster_id", String(32), nullable=False),
    Column("cluster_name", Text, nullable=False),
    Column("at", Float, nullable=False),
    Column("kind", String(40), nullable=False),
    Column("text", Text, nullable=False),
)
Index("cluster_events_by_cluster", cluster_events.c.cluster_id, cluster_events.c.seq)

attempts = Table(
    "attempts",
    metadata,
    Column("request_id", String(36), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("cluster_id", String(32), nullable=False),
    Column("candidate", JSON, nullable=False),
    Column("state", String(20), nullable=False),  # placed | succeeded | failed
    Column("failure_kind", String(20), nullable=True),
    Column("message", Text, nullable=False),
    Column("started_at", Float, nullable=False),
    Column("ended_at", Float, nullable=True),
)

shortages = Table(
    "shortages",
    metadata,
    Column("cloud", String(40), primary_key=True),
    Column("region", String(80), primary_key=True),
    Column("instance_type", String(80), primary_key=True),
    Column("until", Float, nullable=False),
    Column("reason", Text, nullable=False),
)

jobs = Table(
    "jobs",
    metadata,
    Column("cluster_id", String(32), primary_key=True),
    Column("job_id", Integer, primary_key=True),
    Column("state", String(20), nullable=False),
    Column("row", JSON, nullable=False),
    Column("updated_at", Float, nullable=False),
)

secrets = Table(
    "secrets",
    metadata,
    Column("owner", String(120), primary_key=True),  # e.g. cluster:<id>
    Column("name", String(80), primary_key=True),
    Column("sealed", LargeBinary, nullable=False),
    Column("created_at", Float, nullable=False),
)

tokens = Table(
    "tokens",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("name", String(80), nullable=False),
    Column("digest", String(64), nullable=False, unique=True),  # SHA-256: the token itself is stored nowhere
    Column("user_id", String(80), nullable=False),
    Column("user_name", String(200), nullable=False),
    Column("role", String(20), nullable=False),
    Column("created_by", String(200), nullable=False),
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float, nullable=True),
    Column("revoked_at", Float, nullable=True),
    Column("last_used_at", Float, nullable=True),
)

preferences = Table(
    "preferences",
    metadata,
    Column("user_id", String(80), primary_key=True),
    Column("workspace", String(80), nullable=False),
)

cluster_history = Table(
    "cluster_history",
    metadata,
    Column("cluster_id", String(32), primary_key=True),
    Column("workspace", String(80), nullable=False),
    Column("name", Text, nullable=False),
    Column("user_id", String(80), nullable=False),
    Column("user_name", String(200), nullable=False),
    Column("spec", JSON, nullable=False),
    Column("resources", JSON, nullable=False),
    Column("price_per_hour", Float, nullable=False),  # of all nodes together
    Column("launched_at", Float, nullable=True),
    Column("last_use", Text, nullable=False),
    Column("intervals", JSON, nullable=False),  # [[from, to or null]]: when its machines ran
    Column("ended_at", Float, nullable=True),
)
Index("cluster_history_by_end", cluster_history.c.ended_at)

leases = Table(
    "leases",
    metadata,
    Column("name", String(40), primary_key=True),
    Column("holder", Text, nullable=False),
    Column("fence", Integer, nullable=False),  # grows with each holder: writes of an earlier one are refused
    Column("beat", BigInteger, nullable=False),  # counts renewals; no clock of another machine is ever compared
)

server_facts = Table(
    "server_facts",
    metadata,
    Column("name", String(40), primary_key=True),
    Column("value", Text, nullable=False),
)
