"""`Dag`: tasks and the order among them: one task, a chain (pipeline), a job group (all at once), or any graph.

Edges are kept here; networkx is only loaded by those who ask for its graph. How one is written is in `dag_yaml`.
"""

from __future__ import annotations

import enum
import os
import threading
from typing import TYPE_CHECKING, Any

from skyinfra.model.autostop import minutes_of

if TYPE_CHECKING:
    from skyinfra.model.task import Task

__all__ = ["Dag", "DagExecution", "current_dag", "delay_seconds"]

Overrides = list[tuple[str, str]] | None


class DagExecution(enum.Enum):
    SERIAL = "serial"
    PARALLEL = "parallel"


class _Open(threading.local):
    """The `with Dag()` blocks that this thread is in, innermost last."""

    def __init__(self) -> None:
        self.dags: list[Dag] = []


_open = _Open()


def current_dag() -> Dag | None:
    """The innermost `with Dag()` block of this thread."""
    return _open.dags[-1] if _open.dags else None


def delay_seconds(value: str | int | None) -> int:
    """`30s`, `5m`, `1h`, `30` in seconds; None is 0. Raises `ValueError`."""
    if value is None:
        return 0
    text = str(value).strip()
    if text.endswith("s") and text[:-1].isdecimal():
        return int(text[:-1])
    if text.isdecimal():
        return int(text)
    if text[-1:] in ("m", "h") and text[:-1].isdecimal():
        return minutes_of(text) * 60
    raise ValueError(f"termination_delay {value!r} is not a time such as 30s, 5m or 1h")


class Dag:
    """Tasks and edges. As a context manager it collects the tasks that are made inside."""

    def __init__(self) -> None:
        self.tasks: list[Task] = []
        self.name: str | None = None
        self.execution: DagExecution | None = None
        self.primary_tasks: list[str] | None = None
        """Job group: when these end, the others are stopped; None = all are primary."""
        self.termination_delay: str | int | dict[str, str | int] | None = None
        self.inter_connection: bool | None = None
        self.pool: str | None = None
        self.policy_applied = False
        self.edges: list[tuple[Task, Task]] = []

    def add(self, task: Task) -> None:
        """Adding a task twice changes nothing."""
        if task not in self.tasks:
            self.tasks.append(task)

    def remove(self, task: Task) -> None:
        """Raises `ValueError` for a task that is not in it."""
        self.tasks.remove(task)
        self.edges = [(a, b) for a, b in self.edges if task is not a and task is not b]

    def add_edge(self, op1: Task, op2: Task) -> None:
        """`op1` before `op2`. Raises `ValueError` for a task that is not in it, or for one before itself."""
        for task in (op1, op2):
            if task not in self.tasks:
                raise ValueError(f"{task} is not in this dag")
        if op1 is op2:
            raise ValueError(f"{op1} cannot come before itself")
        if (op1, op2) not in self.edges:
            self.edges.append((op1, op2))

    def __len__(self) -> int:
        return len(self.tasks)

    def __enter__(self) -> Dag:
        _open.dags.append(self)
        return self

    def __exit__(self, exc_type: Any, exc_value: Any, traceback: Any) -> None:
        _open.dags.pop()

    def __repr__(self) -> str:
        return f"Dag(name={self.name}, tasks=[{', '.join(t.name or '-' for t in self.tasks)}])"

    def get_graph(self) -> Any:
        """A `networkx.DiGraph` of the tasks. Raises `ImportError` without networkx."""
        import networkx

        graph = networkx.DiGraph()
        graph.add_nodes_from(self.tasks)
        graph.add_edges_from(self.edges)
        return graph

    def topological_order(self) -> list[Task]:
        """The tasks, each after those that come before it. Raises `ValueError` for a circle."""
        waiting = {t: {a for a, b in self.edges if b is t} for t in self.tasks}
        order: list[Task] = []
        while waiting:
            ready = [t for t in self.tasks if t in waiting and not waiting[t]]
            if not ready:
                raise ValueError(f"{self!r} has a circle")
            for task in ready:
                del waiting[task]
            for before in waiting.values():
                before.difference_update(ready)
            order += ready
        return order

    def is_chain(self) -> bool:
        """Whether the tasks run strictly one after another; none and one do."""
        if len(self.tasks) <= 1:
            return True
        if len(self.edges) != len(self.tasks) - 1 or self.is_job_group():
            return False
        befores, afters = [a for a, _ in self.edges], [b for _, b in self.edges]
        return len(set(befores)) == len(befores) and len(set(afters)) == len(afters)

    # --- job groups -----------------------------------------------------------------------------------------------

    def is_job_group(self) -> bool:
        return self.execution is DagExecution.PARALLEL

    def set_execution(self, execution: DagExecution) -> None:
        self.execution = execution

    def inter_connection_enabled(self) -> bool:
        """Whether the members must reach each other: yes, unless the header says no."""
        return self.inter_connection is not False

    def get_termination_delay_secs(self, task_name: str) -> int:
        """How long a member may go on once the primary tasks have ended."""
        delay = self.termination_delay
        if isinstance(delay, dict):
            return delay_seconds(delay.get(task_name, delay.get("default")))
        return delay_seconds(delay)

    def is_primary_task(self, task_name: str) -> bool:
        return not self.primary_tasks or task_name in self.primary_tasks

    def get_auxiliary_task_names(self) -> list[str]:
        return [t.name for t in self.tasks if t.name is not None and not self.is_primary_task(t.name)]

    # --- checks and YAML ------------------------------------------------------------------------------------------

    def validate(self, skip_file_mounts: bool = False, skip_workdir: bool = False) -> None:
        """Every task's checks. Raises as `Task.validate`."""
        for task in self.tasks:
            task.validate(skip_file_mounts=skip_file_mounts, skip_workdir=skip_workdir)

    @staticmethod
    def from_yaml(
        yaml_path: str | os.PathLike[str], env_overrides: Overrides = None, secrets_overrides: Overrides = None
    ) -> Dag:
        """Of a file with one task, a pipeline or a job group. Duplicate keys are refused.

        Raises `InvalidSkyPilotConfigError` or `ValueError`, each problem with `FILE:LINE:COL`; `OSError` for no file.
        """
        from skyinfra.model import dag_yaml
        from skyinfra.model.yaml_file import read_yaml_file

        return dag_yaml.build(read_yaml_file(yaml_path), env_overrides, secrets_overrides)

    @staticmethod
    def from_yaml_str(yaml_str: str, env_overrides: Overrides = None, secrets_overrides: Overrides = None) -> Dag:
        """The same of a text, in which the last of duplicate keys wins."""
        from skyinfra.model import dag_yaml
        from skyinfra.model.yaml_file import read_yaml_str

        return dag_yaml.build(read_yaml_str(yaml_str), env_overrides, secrets_overrides)

    def to_yaml_configs(self) -> list[dict[str, Any]]:
        """The documents that mean this chain or job group; header first when there is one."""
        from skyinfra.model import dag_yaml

        return dag_yaml.to_yaml_configs(self)
