"""From a verb's JSON result to what callers read: records, enums, handles.

A newer server may send fields and states that this client does not know: fields are kept as they are, and an unknown
state stays a string instead of failing the whole listing.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any, TypeVar

from skyinfra.model.handles import ClusterHandle
from skyinfra.model.records import Record
from skyinfra.model.states import ClusterStatus, JobStatus

__all__ = ["plain", "value_of"]

E = TypeVar("E", bound=enum.Enum)


def value_of(verb: str, result: Any) -> Any:
    """What `sky.get` gives for a finished request of `verb`."""
    decoder = _DECODERS.get(verb.removeprefix("sky."))
    return decoder(result) if decoder is not None else result


def plain(value: Any) -> Any:
    """A JSON value again: enums by value, handles as the server sent them."""
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, ClusterHandle):
        return value.to_json()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def _member(kind: type[E], name: Any) -> E | Any:
    return kind.__members__.get(name, name) if isinstance(name, str) else name


def _launched(result: Any) -> tuple[int | None, ClusterHandle | None]:
    result = result or {}
    return result.get("job_id"), ClusterHandle.from_json(result.get("handle"))


def _clusters(result: Any) -> list[Record]:
    records = [Record(row) for row in result or ()]
    for record in records:
        record["status"] = _member(ClusterStatus, record.get("status"))
        record["handle"] = ClusterHandle.from_json(record.get("handle"))
    return records


def _jobs(result: Any) -> list[Record]:
    records = [Record(row) for row in result or ()]
    for record in records:
        record["status"] = _member(JobStatus, record.get("status"))
    return records


def _ports(result: Any) -> dict[int, str]:
    return {int(port): address for port, address in (result or {}).items()}


def _costs(result: Any) -> list[Record]:
    records = [Record(row) for row in result or ()]
    for record in records:
        record["status"] = _member(ClusterStatus, record.get("status"))
    return records


def _updates(result: Any) -> list[Record]:
    return [Record(row) for row in result or ()]


def _job_states(result: Any) -> dict[int | None, JobStatus | None]:
    return {job_id: _member(JobStatus, state) for job_id, state in result or ()}


def _optimized(result: Any) -> Any:
    """The graph that was sent, its tasks with the places chosen for them."""
    from skyinfra.model.dag import Dag, DagExecution
    from skyinfra.model.resources import Resources
    from skyinfra.model.task import Task

    dag = Dag()
    dag.name = result.get("name")
    dag.set_execution(DagExecution(result.get("execution", "serial")))
    dag.inter_connection = result.get("inter_connection")
    for config, best in zip(result["tasks"], result["best_resources"], strict=True):
        task = Task.from_yaml_config(config)
        task.best_resources = next(iter(Resources.from_yaml_config(best)))
        dag.add(task)
    for source, target in result.get("edges", ()):
        dag.add_edge(dag.tasks[source], dag.tasks[target])
    return dag


def _accelerators(result: Any) -> Any:
    from skyinfra.catalog.listing import InstanceTypeInfo

    return {
        name: [InstanceTypeInfo(*row[: len(InstanceTypeInfo._fields)]) for row in rows] for name, rows in result.items()
    }


_DECODERS: dict[str, Callable[[Any], Any]] = {
    "launch": _launched,
    "exec": _launched,
    "status": _clusters,
    "queue": _jobs,
    "job_status": _job_states,
    "endpoints": _ports,
    "cost_report": _costs,
    "history": _updates,
    "diff": Record,
    "rollback": Record,
    "optimize": _optimized,
    "list_accelerators": _accelerators,
    "stack_env": Record,
    "eject": Record,
    "orphans": Record,
}
