"""The history of clusters that costs are counted from: a row per cluster, kept when it is gone, with when it ran.

Written in the transaction of the change that it follows, by `store.clusters`; nobody else writes it.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import insert, select, update
from sqlalchemy.engine import Connection, Row

from skyinfra.store.tables import attempts, cluster_history

__all__ = ["begin", "end", "follow", "since"]

_COPIED = ("spec", "resources", "last_use", "launched_at")


def begin(db: Connection, values: dict[str, Any]) -> None:
    """A cluster's row was made from `values`."""
    fields = ("workspace", "name", "user_id", "user_name", *_COPIED)
    db.execute(
        insert(cluster_history).values(
            cluster_id=values["id"], price_per_hour=0.0, intervals=[], **{name: values[name] for name in fields}
        )
    )


def follow(db: Connection, row: Row[Any], changed: dict[str, Any], at: float) -> None:
    """The cluster `row` is being changed: it begins to cost when it comes up, and ends when it is stopped.

    In INIT after it was up its machines may still run, so it goes on costing until somebody knows better.
    """
    values = {name: changed[name] for name in _COPIED if name in changed}
    status = changed.get("status")
    if not values and status not in ("UP", "STOPPED"):
        return
    known = db.execute(select(cluster_history).where(cluster_history.c.cluster_id == row.id)).first()
    if known is None:  # made by a version that kept no history
        begin(db, dict(row._mapping))
    intervals = [list(one) for one in known.intervals] if known is not None else []
    if status == "UP" and not (intervals and intervals[-1][1] is None):
        slots = len((changed.get("spec") or row.spec)["slots"])
        values.update(intervals=[*intervals, [at, None]], price_per_hour=_price(db, row.id) * slots)
    elif status == "STOPPED":
        values["intervals"] = _closed(intervals, at)
    if values:
        db.execute(update(cluster_history).where(cluster_history.c.cluster_id == row.id).values(**values))


def end(db: Connection, cluster_id: str, at: float) -> None:
    """The cluster is gone."""
    mine = cluster_history.c.cluster_id == cluster_id
    known = db.execute(select(cluster_history.c.intervals).where(mine)).first()
    if known is not None:
        db.execute(update(cluster_history).where(mine).values(intervals=_closed(known.intervals, at), ended_at=at))


def since(db: Connection, at: float, user_id: str | None = None) -> list[Row[Any]]:
    """Clusters that exist or ended after `at`, the newest first."""
    alive = cluster_history.c.ended_at.is_(None) | (cluster_history.c.ended_at >= at)
    query = select(cluster_history).where(alive)
    if user_id is not None:
        query = query.where(cluster_history.c.user_id == user_id)
    return list(db.execute(query.order_by(cluster_history.c.launched_at.desc().nulls_last(), cluster_history.c.name)))


def _closed(intervals: list[Any], at: float) -> list[list[float]]:
    return [[begun, at if ended is None else ended] for begun, ended in intervals]


def _price(db: Connection, cluster_id: str) -> float:
    """$/h of one node where the cluster was placed last."""
    query = select(attempts.c.candidate).where(attempts.c.cluster_id == cluster_id)
    candidate = db.execute(query.order_by(attempts.c.started_at.desc(), attempts.c.number.desc()).limit(1)).scalar()
    return float((candidate or {}).get("price_per_hour") or 0.0)
