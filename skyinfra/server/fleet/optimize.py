"""``optimize`` and the accelerator listings: read verbs answered from the catalog. They make and store nothing."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from skyinfra.catalog.listing import list_accelerator_counts, list_accelerators
from skyinfra.catalog.optimizer import plan_dag
from skyinfra.model.dag import Dag, DagExecution
from skyinfra.model.states import OptimizeTarget
from skyinfra.model.task import Task
from skyinfra.server.config import ServerConfig
from skyinfra.server.fleet.clouds import Clouds
from skyinfra.server.identity import Principal

__all__ = ["Optimize"]


class Optimize:
    def __init__(self, clouds: Clouds, config: ServerConfig) -> None:
        self._clouds = clouds
        self._config = config

    async def optimize(self, principal: Principal, body: dict[str, Any]) -> bytes:
        """The graph as it came, and for each task the resources chosen.

        Raises `ResourcesUnavailableError`, `NoCloudAccessError`, and `ValueError` for a graph that is none.
        """
        return json.dumps(await asyncio.to_thread(self._optimize, body)).encode()

    def _optimize(self, body: dict[str, Any]) -> dict[str, Any]:
        config = self._config.of_request(body)
        graph = body["dag"]
        dag = _dag(graph)
        asked = [one for task in dag.tasks for one in task.resources]
        for task in dag.tasks:
            task.set_resources(self._clouds.reachable(task.resources, config))
        plan = plan_dag(dag, OptimizeTarget[body["minimize"]], offers=self._clouds.catalog(config, asked))
        best = {id(one.task): one.chosen.candidate.resources().to_yaml_config() for one in plan.tasks}
        return {
            **graph,
            "best_resources": [best[id(task)] for task in dag.tasks],
            "total_cost": plan.total_cost,
            "total_time_s": plan.total_time_s,
        }

    async def accelerators(self, principal: Principal, body: dict[str, Any]) -> bytes:
        """By name, each with its machine types. Raises `ValueError` for a bad filter or an unknown cloud."""
        return json.dumps(await asyncio.to_thread(self._list, list_accelerators, body)).encode()

    async def accelerator_counts(self, principal: Principal, body: dict[str, Any]) -> bytes:
        """By name, the numbers in which it comes. Raises as `accelerators`."""
        return json.dumps(await asyncio.to_thread(self._list, list_accelerator_counts, body)).encode()

    def _list(self, listing: Any, body: dict[str, Any]) -> Any:
        filters = {k: v for k, v in body.items() if k not in ("user", "entrypoint", "workspace")}
        return listing(**filters, catalog=self._clouds.everything())


def _dag(graph: dict[str, Any]) -> Dag:
    dag = Dag()
    dag.name = graph["name"]
    dag.set_execution(DagExecution(graph["execution"]))
    dag.inter_connection = graph["inter_connection"]
    for config in graph["tasks"]:
        dag.add(Task.from_yaml_config(config))
    for source, target in graph["edges"]:
        if not (0 <= source < len(dag.tasks) and 0 <= target < len(dag.tasks)):
            raise ValueError(f"edge {source} → {target}: there are {len(dag.tasks)} tasks")
        dag.add_edge(dag.tasks[source], dag.tasks[target])
    return dag
