"""How several tasks are written in one file: a pipeline, a job group with its header, or a single task."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from skyinfra.model.dag import Dag, DagExecution, Overrides, delay_seconds
from skyinfra.model.exceptions import InvalidSkyPilotConfigError
from skyinfra.model.names import JOB_GROUP_MEMBER
from skyinfra.model.problems import under

if TYPE_CHECKING:
    from skyinfra.model.yaml_file import Source

__all__ = ["build", "to_yaml_configs"]

_HEADER_KEYS = ("name", "execution", "primary_tasks", "termination_delay", "inter_connection")

logger = logging.getLogger(__name__)


def build(source: Source, env_overrides: Overrides = None, secrets_overrides: Overrides = None) -> Dag:
    """The dag of a text that was read. Raises as `Dag.from_yaml`."""
    from skyinfra.model.task import Task

    documents = [(i, d) for i, d in enumerate(source.documents) if d is not None]
    header_at, header = _header(documents)
    bodies = [(i, d) for i, d in documents if i != header_at]
    dag = Dag()
    if header is not None:
        with source.locating(header_at):
            _apply_header(dag, header)
            with under(next(iter(header))):
                if not bodies:
                    raise ValueError("after the header there must be at least one task")
    if not documents:
        bodies = [(0, {})]  # an empty file is one empty task
    for index, config in bodies:
        with source.locating(index), dag:  # so that an open `with Dag()` around the reading gets none of them
            task = Task.from_yaml_config(config, env_overrides, secrets_overrides)
        task.source = (source, index)
        dag.add(task)
    if header is None and len(dag.tasks) == 1:
        dag.name = dag.tasks[0].name
    if dag.is_job_group():
        _check_members(dag, source, header_at, [i for i, _ in bodies])
    else:
        for before, after in zip(dag.tasks, dag.tasks[1:], strict=False):
            dag.add_edge(before, after)
    return dag


def _header(documents: list[tuple[int, Any]]) -> tuple[int, dict[str, Any] | None]:
    """The first document, when it names the whole rather than a task."""
    if not documents or not isinstance(documents[0][1], dict):
        return -1, None
    index, first = documents[0]
    if "execution" in first or (len(documents) > 1 and set(first) == {"name"}):
        return index, first
    return -1, None


def _apply_header(dag: Dag, header: dict[str, Any]) -> None:
    with under("name"):
        if header.get("name") is not None and not isinstance(header["name"], str):
            raise InvalidSkyPilotConfigError(f"the name must be text, not {header['name']!r}")
    dag.name = header.get("name")
    execution = header.get("execution", "serial")
    with under("execution"):
        try:
            dag.set_execution(DagExecution(str(execution).lower()))
        except ValueError:
            raise ValueError(f"execution {execution!r} is not serial or parallel") from None
    for key in header:
        if key not in _HEADER_KEYS:
            logger.warning("unknown key %r in the header is ignored; it may have: %s", key, ", ".join(_HEADER_KEYS))
    if not dag.is_job_group():
        return
    with under("name"):
        if not dag.name:
            raise ValueError("a job group needs a name")
    with under("primary_tasks"):
        primary = header.get("primary_tasks")
        if primary is not None and not (isinstance(primary, list) and all(isinstance(p, str) for p in primary)):
            raise ValueError("primary_tasks must be a list of task names")
        dag.primary_tasks = primary
    with under("termination_delay"):
        delay = header.get("termination_delay")
        for value in delay.values() if isinstance(delay, dict) else [delay]:
            delay_seconds(value)
        dag.termination_delay = delay
    with under("inter_connection"):
        if header.get("inter_connection") not in (None, True, False):
            raise ValueError("inter_connection must be true or false")
        dag.inter_connection = header.get("inter_connection")


def _check_members(dag: Dag, source: Source, header_at: int, indexes: list[int]) -> None:
    seen: set[str] = set()
    for task, index in zip(dag.tasks, indexes, strict=True):
        with source.locating(index), under("name"):
            if not task.name:
                raise ValueError("every task of a job group needs a name")
            if JOB_GROUP_MEMBER.fullmatch(task.name) is None:
                raise ValueError(f"task name {task.name!r}: in a job group only letters, digits, - and _ are allowed")
            if task.name in seen:
                raise ValueError(f"task name {task.name!r} is used twice")
            seen.add(task.name)
    with source.locating(header_at):
        for key, names in (("primary_tasks", dag.primary_tasks or []), ("termination_delay", _delayed(dag))):
            with under(key):
                for name in names:
                    if name not in seen:
                        raise ValueError(f"{key} names {name!r}, which is no task here: {', '.join(sorted(seen))}")


def _delayed(dag: Dag) -> Iterator[str]:
    if isinstance(dag.termination_delay, dict):
        yield from (name for name in dag.termination_delay if name != "default")


def to_yaml_configs(dag: Dag) -> list[dict[str, Any]]:
    """Header first for a job group and for a named pipeline."""
    bodies = [t.to_yaml_config() for t in dag.topological_order()]
    header: dict[str, Any] = {"name": dag.name}
    if dag.is_job_group():
        header["execution"] = "parallel"
        for key in ("primary_tasks", "termination_delay", "inter_connection"):
            if getattr(dag, key) is not None:
                header[key] = getattr(dag, key)
        return [header, *bodies]
    return [header, *bodies] if len(bodies) > 1 and dag.name is not None else bodies
