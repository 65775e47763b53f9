"""Which machines a DAG should run on: the plan, and the ranking behind it.

`plan_dag` is pure: a DAG, a catalog and what is blocked in, a `Plan` out (its tasks untouched); `optimize` also sets
each task's `best_resources`. When a task fits nowhere the exception says why, cloud by cloud (`whynot`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from skyinfra.catalog.candidates import candidates_of
from skyinfra.catalog.catalog import Catalog
from skyinfra.catalog.egress import cloud_of_uri
from skyinfra.catalog.objective import Ranked, Reservations, Value, edge_value, rank_candidates
from skyinfra.model.exceptions import ResourcesUnavailableError, with_hint
from skyinfra.model.states import OptimizeTarget

if TYPE_CHECKING:
    from skyinfra.catalog.whynot import Refusal
    from skyinfra.model.dag import Dag
    from skyinfra.model.resources import Resources
    from skyinfra.model.task import Task

__all__ = ["Optimizer", "Plan", "TaskPlan", "apply_plan", "optimize", "plan_dag", "plan_task"]

_NOTHING: Value = (0.0, 0.0)
_MAY_BE_UNKNOWN = ("instance_type", "accelerator", "local_disk", "region", "zone", "spot", "price")

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class TaskPlan:
    """A task's chosen place and every other one, best first. Failover walks `candidates` in order."""

    task: Task
    chosen: Ranked
    candidates: tuple[Ranked, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """A DAG's plan. Totals include moving data between clouds; `total_cost` None = a price is not known."""

    dag: Dag
    target: OptimizeTarget
    tasks: tuple[TaskPlan, ...]  #: in topological order
    total_cost: float | None  #: USD
    total_time_s: float  #: until the last task ends
    method: str  #: "single", "chain", "independent", "general" or "group"


def optimize(
    dag: Dag,
    minimize: OptimizeTarget = OptimizeTarget.COST,
    blocked_resources: Iterable[Resources] | None = None,
    offers: Catalog | None = None,
    *,
    reservations: Reservations | None = None,
) -> Dag:
    """The DAG, each task with its `best_resources` set. Raises as `plan_dag`; then nothing is set."""
    apply_plan(plan_dag(dag, minimize, blocked_resources, offers, reservations=reservations))
    return dag


def apply_plan(plan: Plan) -> None:
    """Set each task's `best_resources`."""
    for task_plan in plan.tasks:
        task_plan.task.best_resources = task_plan.chosen.candidate.resources()


def plan_dag(
    dag: Dag,
    minimize: OptimizeTarget = OptimizeTarget.COST,
    blocked_resources: Iterable[Resources] | None = None,
    offers: Catalog | None = None,
    *,
    reservations: Reservations | None = None,
) -> Plan:
    """The best plan. `offers` None = all the data of this state folder; `reservations` = nodes already paid for.

    Raises `ResourcesUnavailableError` (with an empty history: nothing was tried) when a task fits nowhere, or the
    members of a job group nowhere together; `ValueError` for an empty DAG or one with a cycle.
    """
    catalog = offers or Catalog.default()
    blocked, reserved = list(blocked_resources or ()), reservations or {}
    tasks, edges = _ordered(dag)
    ranked = [plan_task(task, catalog, minimize, blocked, reserved) for task in tasks]
    if dag.is_job_group() and len(tasks) > 1 and dag.inter_connection_enabled():
        chosen, method = _choose_together(tasks, ranked), "group"
    elif len(tasks) == 1 and not _has_input(tasks[0]):
        chosen, method = [ranked[0][0]], "single"
    else:
        chosen, method = _choose(tasks, edges, ranked, minimize)
    plans = tuple(TaskPlan(*parts) for parts in zip(tasks, chosen, map(tuple, ranked), strict=True))
    cost, time_s = _totals(plans, edges)
    return Plan(dag, minimize, plans, cost, time_s, method)


def plan_task(
    task: Task, catalog: Catalog, minimize: OptimizeTarget, blocked: Sequence[Resources], reservations: Reservations
) -> list[Ranked]:
    """A task's places, best first, never empty. Raises `ResourcesUnavailableError` saying why there is none."""
    candidates = candidates_of(catalog, task.resources, blocked)
    if candidates:
        return rank_candidates(task, candidates, minimize, reservations)
    from skyinfra.catalog.whynot import explain, why_not

    refusals = why_not(catalog, task.resources, num_nodes=task.num_nodes, blocked=blocked)
    raise with_hint(ResourcesUnavailableError(explain(task.name, refusals)), _hint(catalog, refusals))


def _hint(catalog: Catalog, refusals: Sequence[Refusal]) -> str:
    """What to change; and, where the shipped data may only not know better, how to learn more."""
    tries = dict.fromkeys(one.suggestion for one in refusals if one.suggestion)
    for one in refusals:
        if one.requirement in _MAY_BE_UNKNOWN and (age := catalog.as_of(one.cloud)) is not None and not age.refreshed:
            tries[f"`skyinfra catalog refresh {one.cloud}`: {age.describe()}"] = None
    return "; or ".join(tries) or "`skyinfra gpus list` shows what there is; leave region or cloud open"


def _ordered(dag: Dag) -> tuple[list[Task], list[tuple[int, int]]]:
    """Tasks in topological order, and the edges between their numbers."""
    if not dag.tasks:
        raise ValueError("the DAG has no tasks")
    if len(dag.tasks) == 1 or dag.is_job_group():
        return list(dag.tasks), []
    tasks = dag.topological_order()
    number = {task: n for n, task in enumerate(tasks)}
    return tasks, sorted((number[u], number[v]) for u, v in dag.edges)


def _choose(
    tasks: Sequence[Task], edges: Sequence[tuple[int, int]], ranked: Sequence[Sequence[Ranked]], target: OptimizeTarget
) -> tuple[list[Ranked], str]:
    """The best combination over clouds; what each task reads from outside is part of its own value."""
    from skyinfra.catalog.choice import Puzzle, solve_chain, solve_general

    bests = [_best_by(one, lambda r: r.candidate.offer.cloud) for one in ranked]
    roots = set(range(len(tasks))) - {v for _, v in edges}
    options = [
        {
            cloud: _add(r.value, _input_value(tasks[n], cloud, target) if n in roots else _NOTHING)
            for cloud, r in b.items()
        }
        for n, b in enumerate(bests)
    ]
    moves = {
        (u, v): {(a, b): edge_value(a, b, _output_gb(tasks[u]), target) for a in bests[u] for b in bests[v]}
        for u, v in edges
    }
    puzzle = Puzzle(options, moves)
    if puzzle.is_chain():
        clouds, method = solve_chain(puzzle), "chain"
    elif all(value == _NOTHING for values in moves.values() for value in values.values()):
        # Nothing is moved, so no choice bears on another: each task takes its own best.
        clouds, method = [min(o, key=lambda cloud, o=o: o[cloud]) for o in options], "independent"
    else:
        clouds, method = solve_general(puzzle, minimize_finish=target is OptimizeTarget.TIME), "general"
    return [best[cloud] for best, cloud in zip(bests, clouds, strict=True)], method


def _choose_together(tasks: Sequence[Task], ranked: Sequence[Sequence[Ranked]]) -> list[Ranked]:
    """One cloud and region for all members, at the least total."""
    bests = [_best_by(one, lambda r: r.candidate.place) for one in ranked]
    common = set(bests[0]).intersection(*bests[1:])
    if not common:
        names = ", ".join(task.name or f"task {n}" for n, task in enumerate(tasks, 1))
        raise with_hint(
            ResourcesUnavailableError(
                f"No one cloud and region has what every member of the job group needs: {names}."
            ),
            "let members use more clouds or regions, or set inter_connection: false to place them apart",
        )
    place = min(sorted(common), key=lambda at: _sum(best[at].value for best in bests))
    return [best[place] for best in bests]


def _best_by(ranked: Sequence[Ranked], key: Callable[[Ranked], K]) -> dict[K, Ranked]:
    """The best of each group. An ordered list's later alternatives take part only where nothing earlier is left."""
    first = ranked[0].candidate.preference
    best: dict[K, Ranked] = {}
    for one in ranked:
        if one.candidate.preference == first:
            best.setdefault(key(one), one)
    return best


def _totals(plans: Sequence[TaskPlan], edges: Sequence[tuple[int, int]]) -> tuple[float | None, float]:
    """Dollars of everything, and the seconds until the last task ends."""
    costs = [plan.chosen.cost for plan in plans]
    total = sum(math.inf if cost is None else cost for cost in costs)
    ends: list[float] = []
    before: Mapping[int, list[int]] = {n: [u for u, v in edges if v == n] for n in range(len(plans))}
    for n, plan in enumerate(plans):
        cloud = plan.chosen.candidate.offer.cloud
        cost, seconds = _NOTHING if before[n] else _input_value(plan.task, cloud, OptimizeTarget.COST)
        ready = seconds
        total += cost
        for u in before[n]:
            source = plans[u].chosen.candidate.offer.cloud
            cost, seconds = edge_value(source, cloud, _output_gb(plans[u].task), OptimizeTarget.COST)
            total, ready = total + cost, max(ready, ends[u] + seconds)
        ends.append(ready + plan.chosen.runtime_s)
    return None if math.isinf(total) else total, max(ends)


def _has_input(task: Task) -> bool:
    return task.get_inputs() is not None


def _input_value(task: Task, cloud: str, target: OptimizeTarget) -> Value:
    """What bringing a first task's input to a cloud adds; where the input lies is told by its URI."""
    if not _has_input(task):
        return _NOTHING
    source = cloud_of_uri(task.get_inputs() or "")
    return edge_value(source, cloud, task.get_estimated_inputs_size_gigabytes() or 0.0, target)


def _output_gb(task: Task) -> float:
    return task.get_estimated_outputs_size_gigabytes() or 0.0


def _add(one: Value, other: Value) -> Value:
    return one[0] + other[0], one[1] + other[1]


def _sum(values: Iterable[Value]) -> Value:
    total = _NOTHING
    for value in values:
        total = _add(total, value)
    return total


class Optimizer:
    """The optimizer by SkyPilot's name and calls, for programs that use it directly."""

    @staticmethod
    def optimize(
        dag: Dag,
        minimize: OptimizeTarget = OptimizeTarget.COST,
        blocked_resources: Iterable[Resources] | None = None,
        quiet: bool = False,
    ) -> Dag:
        """`optimize`, with the candidates of each task on stdout unless `quiet`. Raises as `plan_dag`."""
        plan = plan_dag(dag, minimize, blocked_resources)
        apply_plan(plan)
        if not quiet:
            from skyinfra.catalog.candidate_table import plan_text

            print(plan_text(plan))
        return dag

    @staticmethod
    def print_optimized_plan(
        graph: Any,
        topo_order: Sequence[Task],
        best_plan: Mapping[Task, Resources],
        total_time: float,
        total_cost: float,
        node_to_cost_map: Mapping[Task, Mapping[Resources, float]],
        minimize_cost: bool,
    ) -> None:
        """A plan made elsewhere on stdout: for each task what was chosen, and what it costs or takes there."""
        del graph  # SkyPilot draws egress from it; here totals have it
        unit = "$" if minimize_cost else "s"
        for task in topo_order:
            best = best_plan[task]
            value = node_to_cost_map.get(task, {}).get(best)
            told = "" if value is None else f": {value:.2f} {unit}"
            print(f"{task.name or 'task'}: {task.num_nodes} x {best}{told}")
        print(f"Estimated cost: ${total_cost:.2f}; estimated time: {total_time / 3600:.1f} h")

    @staticmethod
    def optimize_job_group(
        dag: Dag,
        minimize: OptimizeTarget = OptimizeTarget.COST,
        blocked_resources: Iterable[Resources] | None = None,
        quiet: bool = False,
    ) -> Dag:
        """The same: that it is a group is seen from the DAG."""
        return Optimizer.optimize(dag, minimize, blocked_resources, quiet)
