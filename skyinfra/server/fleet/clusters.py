"""The clusters this server owns: their rows, their states, and how users see them.

The only writer of the table, so that what `status` answers can be kept encoded until something changes. Every change of
state is checked against the model's table and leaves an event in the same transaction.
"""

from __future__ import annotations

import fnmatch
import json
import secrets
import time
from collections.abc import Callable
from typing import Any

from skyinfra.model.exceptions import ClusterDoesNotExist, ClusterNotUpError, with_hint
from skyinfra.model.handles import ClusterHandle
from skyinfra.model.spec import ClusterSpec
from skyinfra.model.states import ClusterStatus
from skyinfra.model.transitions import check_transition
from skyinfra.server.fleet.certificates import Authority
from skyinfra.server.vault import Secret, Vault
from skyinfra.store import clusters as rows
from skyinfra.store import secrets as sealed
from skyinfra.store.database import Database

__all__ = ["Clusters", "cordoned_slots", "handle_of", "resources_str"]

Row = Any
TOKEN = "agent_token"
CERTIFICATES = "node_certificates"


class Clusters:
    def __init__(self, db: Database, vault: Vault, clock: Callable[[], float] = time.time) -> None:
        self._db = db
        self._vault = vault
        self._clock = clock
        self._records: list[dict[str, Any]] | None = None
        self._encoded: dict[str, bytes] = {}
        self._changes = 0
        self._tokens: dict[str, Secret] = {}
        self._certificates: dict[str, dict[str, Any]] = {}
        self.on_change: Callable[[], None] = lambda: None
        """Called after each change: the watchers look again which clusters they should watch."""

    # --- reading -------------------------------------------------------------------------------------------------

    async def find(self, workspace: str, name: str) -> Row | None:
        return await self._db.read(lambda db: rows.get(db, workspace, name))

    async def get(self, workspace: str, name: str) -> Row:
        """Raises `ClusterDoesNotExist`."""
        row = await self.find(workspace, name)
        if row is None:
            raise with_hint(ClusterDoesNotExist(f"Cluster '{name}' does not exist."), "`skyinfra status` lists them")
        return row

    async def get_up(self, workspace: str, name: str) -> Row:
        """Raises `ClusterDoesNotExist` or `ClusterNotUpError`."""
        row = await self.get(workspace, name)
        if row.status != ClusterStatus.UP.name:
            status = ClusterStatus[row.status]
            why = f" ({row.status_reason})" if row.status_reason else ""
            error = ClusterNotUpError(f"Cluster '{name}' is not up: {status.name}{why}.", status, handle_of(row))
            off = status is ClusterStatus.STOPPED
            raise with_hint(error, f"`skyinfra start {name}` starts it") if off else error
        return row

    async def by_id(self, cluster_id: str) -> Row | None:
        return await self._db.read(lambda db: rows.by_id(db, cluster_id))

    async def all(self) -> list[Row]:
        return await self._db.read(rows.all_rows)

    async def token(self, cluster_id: str) -> Secret:
        """The bearer token of the cluster's agents. Raises `RuntimeError` when it is lost."""
        if cluster_id not in self._tokens:
            value = await self._db.read(lambda db: sealed.get(db, _owner(cluster_id), TOKEN))
            if value is None:
                raise RuntimeError(f"the agent token of cluster {cluster_id} is not in the database")
            self._tokens[cluster_id] = Secret(self._vault.unseal(value, _owner(cluster_id)).decode())
        return self._tokens[cluster_id]

    async def certificates(self, cluster_id: str) -> dict[str, Any]:
        """By slot, `{ca, cert, key}`; of a cluster of several nodes."""
        if cluster_id not in self._certificates:
            value = await self._db.read(lambda db: sealed.get(db, _owner(cluster_id), CERTIFICATES))
            if value is None:
                raise RuntimeError(f"the certificates of cluster {cluster_id} are not in the database")
            self._certificates[cluster_id] = json.loads(self._vault.unseal(value, _owner(cluster_id)))
        return self._certificates[cluster_id]

    def now(self) -> float:
        return self._clock()

    # --- writing -------------------------------------------------------------------------------------------------

    async def create(self, values: dict[str, Any], spec: ClusterSpec) -> str:
        """A row in INIT and its agent token, in one transaction. The caller holds the lane, so the name is free."""
        cluster_id = secrets.token_hex(8)
        token = self._vault.seal(secrets.token_urlsafe(32).encode(), _owner(cluster_id))
        certificates = None
        if len(spec.slots) > 1:  # their authority's own key is kept nowhere: nobody joins later
            authority = Authority.make(spec.stack)
            leaves = {str(slot.slot): authority.leaf(slot.slot) for slot in spec.slots}
            certificates = self._vault.seal(json.dumps(leaves).encode(), _owner(cluster_id))
        check_transition(None, ClusterStatus.INIT)
        full = {
            "id": cluster_id,
            "workspace": spec.workspace,
            "name": spec.name,
            "stack": spec.stack,
            "status": ClusterStatus.INIT.name,
            "status_reason": "",
            "init_kind": "launching",
            "spec": spec.to_json(),
            "nodes": [],
            "launched_at": None,
            "ever_up": False,
            "autostop": -1,
            "to_down": False,
            "cordoned": None,
            "revivals": [],
            "events_seq": 0,
            "node_health": None,
            **values,
        }
        at = self._clock()

        def write(db: Any) -> None:
            rows.insert_new(db, full, at)
            sealed.put(db, _owner(cluster_id), TOKEN, token, at)
            if certificates is not None:
                sealed.put(db, _owner(cluster_id), CERTIFICATES, certificates, at)

        await self._db.write(write, durable=True)
        self._changed()
        return cluster_id

    async def change(self, cluster_id: str, event: tuple[str, str] | None = None, **values: Any) -> None:
        """Change a row; a new `status` is checked first. Raises `IllegalTransition`, `store.clusters.Stale`."""
        at = self._clock()

        def write(db: Any) -> None:
            if "status" in values:
                row = rows.by_id(db, cluster_id)
                before = ClusterStatus[row.status] if row is not None else None
                check_transition(before, ClusterStatus[values["status"]])
            rows.change(db, cluster_id, at=at, event=event, **values)

        await self._db.write(write)
        self._changed()

    async def remove(self, row: Row, text: str) -> None:
        """Forget a cluster that was proven gone (or that the user purged)."""
        check_transition(ClusterStatus[row.status], None)
        at = self._clock()
        await self._db.write(lambda db: rows.remove(db, row.id, at, text))
        self._tokens.pop(row.id, None)
        self._certificates.pop(row.id, None)
        self._changed()

    def _changed(self) -> None:
        self._changes += 1
        self._records = None
        self._encoded.clear()
        self.on_change()

    # --- as users see them -----------------------------------------------------------------------------------------

    async def status(
        self,
        names: str | list[str] | None,
        user_id: str | None,
        workspace: str | None = None,
        barred: frozenset[str] = frozenset(),
    ) -> bytes:
        """Records as a JSON array, of one workspace or of all but the barred ones.

        The answer to the usual question is kept encoded until something changes.
        """
        key = json.dumps([names, user_id, workspace, sorted(barred)])
        known = self._encoded.get(key)
        if known is not None:
            return known
        records, seen = self._records, self._changes
        if records is None:
            records = [_record(row, event) for row, event in await self._db.read(_rows_with_events)]
            if seen == self._changes:  # else a change came while we read: ours may be older, and must not be kept
                self._records = records
        patterns = None if names is None else [names] if isinstance(names, str) else names
        chosen = [
            record
            for record in records
            if (user_id is None or record["user_hash"] == user_id)
            and (workspace is None or record["workspace"] == workspace)
            and record["workspace"] not in barred
            and (patterns is None or any(fnmatch.fnmatchcase(record["name"], p) for p in patterns))
        ]
        encoded = json.dumps(chosen, separators=(",", ":")).encode()
        if seen == self._changes and len(self._encoded) < 64:
            self._encoded[key] = encoded
        return encoded


def _rows_with_events(db: Any) -> list[tuple[Row, str | None]]:
    events = rows.last_events(db)
    return [(row, events.get(row.id)) for row in rows.all_rows(db)]


def _owner(cluster_id: str) -> str:
    return f"cluster:{cluster_id}"


def handle_of(row: Row) -> ClusterHandle:
    nodes = row.nodes or []
    return ClusterHandle(
        cluster_name=row.name,
        cluster_name_on_cloud=row.stack,
        workspace=row.workspace,
        head_ip=nodes[0].get("external_ip") or nodes[0].get("internal_ip") if nodes else None,
        launched_nodes=len(row.spec["slots"]),
        resources_config=row.resources,
        cached_external_ips=[node.get("external_ip") or node.get("internal_ip") for node in nodes],
        internal_ips=[node.get("internal_ip") for node in nodes],
        cloud=row.spec["cloud"],
        region=row.spec.get("region"),
    )


def resources_str(spec: dict[str, Any]) -> tuple[str, str]:
    """The nodes of a spec in a few words, and in more."""
    slot, count = spec["slots"][0], len(spec["slots"])
    gpus = f"{slot['gpus'][0]}:{slot['gpus'][1]}" if slot["gpus"] else None
    what = f"gpus={gpus}" if gpus else f"cpus={slot['cpus']:g}"
    short = f"{count}x({what}, {slot['instance_type']}, ...)"
    parts = ([f"gpus={gpus}"] if gpus else []) + [f"cpus={slot['cpus']:g}", f"mem={slot['memory_gb']:g}"]
    return short, f"{count}x({', '.join([*parts, slot['instance_type'], 'disk=' + str(slot['disk_gb'])])})"


def _health(row: Row) -> dict[str, Any]:
    """By slot, of a cluster that runs: `{state, reason}`; nothing of nodes that nobody has looked at."""
    if row.status == ClusterStatus.STOPPED.name:
        return {}
    found = dict(row.node_health or {})
    for slot in cordoned_slots(row.cordoned):
        found[str(slot)] = {"state": "CORDONED", "reason": str(row.cordoned).partition(":")[0]}
    return found


def cordoned_slots(cordoned: str | None) -> tuple[int, ...]:
    """Of ``agent`` (the head) or ``agent:1,2``: the nodes that are not brought back any more."""
    if cordoned is None:
        return ()
    slots = cordoned.partition(":")[2]
    return tuple(int(slot) for slot in slots.split(",")) if slots else (0,)


def _record(row: Row, last_event: str | None) -> dict[str, Any]:
    slot = row.spec["slots"][0]
    short, full = resources_str(row.spec)
    return {
        "name": row.name,
        "launched_at": int(row.launched_at or row.created_at),
        "handle": handle_of(row).to_json(),
        "last_use": row.last_use,
        "status": row.status,
        "autostop": row.autostop,
        "to_down": row.to_down,
        "owner": None,
        "metadata": {},
        "cluster_hash": row.id,
        "cluster_ever_up": row.ever_up,
        "status_updated_at": int(row.status_updated_at),
        "user_hash": row.user_id,
        "user_name": row.user_name,
        "config_hash": row.config_hash or None,
        "workspace": row.workspace,
        "last_creation_yaml": row.creation_yaml,
        "last_creation_command": row.creation_command,
        "is_managed": False,
        "last_event": last_event,
        "init_kind": row.init_kind if row.status == ClusterStatus.INIT.name else None,
        "init_status_reason": row.status_reason or None,
        "resources_str": short,
        "resources_str_full": full,
        "credentials": None,
        "nodes": len(row.spec["slots"]),
        "cloud": row.spec["cloud"],
        "region": row.spec.get("region"),
        "cpus": f"{slot['cpus']:g}",
        "memory": f"{slot['memory_gb']:g}",
        "accelerators": json.dumps({slot["gpus"][0]: slot["gpus"][1]}) if slot["gpus"] else None,
        "labels": row.spec.get("labels") or {},
        "cluster_name_on_cloud": row.stack,
        "node_names": [node.get("id") for node in row.nodes or []],
        "node_health": _health(row),
        "priority": None,
        "priority_class": None,
        "links": {},
    }
