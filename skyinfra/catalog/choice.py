"""The best combination of candidates over a DAG, as a puzzle of clouds: the exact methods, without any I/O.

Data moves freely inside a cloud, so of all candidates of a task in one cloud only the best can be in the best
combination: a puzzle has at most one option per task and cloud. A chain is solved by dynamic programming; any other
DAG by integer programming (PuLP and the CBC solver that it carries), which is imported only then.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from skyinfra.catalog.objective import Value

__all__ = ["Puzzle", "solve_chain", "solve_general"]

_SOLVER_DEADLINE_S = 30
_TIE = 1e-6  # the weight of the second objective in the solver: it decides ties, nothing else


@dataclass(frozen=True, slots=True)
class Puzzle:
    """Tasks are numbers in topological order; each has options by cloud, and edges cost by the clouds at their ends."""

    options: Sequence[Mapping[str, Value]]
    edges: Mapping[tuple[int, int], Mapping[tuple[str, str], Value]]

    def is_chain(self) -> bool:
        """Whether each task follows the one before it, and no other."""
        return set(self.edges) == {(n, n + 1) for n in range(len(self.options) - 1)}


def solve_chain(puzzle: Puzzle) -> list[str]:
    """The cloud of each task; by dynamic programming over the last task's cloud."""
    best: dict[str, tuple[Value, list[str]]] = {"": ((0.0, 0.0), [])}
    for number, options in enumerate(puzzle.options):
        moves = puzzle.edges.get((number - 1, number), {})
        reached: dict[str, tuple[Value, list[str]]] = {}
        for cloud, value in options.items():
            ways = (
                (_sum(so_far, value, moves.get((before, cloud), (0.0, 0.0))), path)
                for before, (so_far, path) in best.items()
            )
            total, path = min(ways, key=lambda way: way[0])
            reached[cloud] = (total, [*path, cloud])
        best = reached
    return min(best.values(), key=lambda way: way[0])[1]


def solve_general(puzzle: Puzzle, minimize_finish: bool) -> list[str]:
    """The cloud of each task of any DAG: the least sum, or (`minimize_finish`) the earliest end of the last task.

    Raises `RuntimeError` when the solver is not installed or does not come to an end in 30 s.
    """
    pulp = _solver()
    problem = pulp.LpProblem("placement", pulp.LpMinimize)
    at, moved = _variables(pulp, problem, puzzle)
    first, second = _totals(pulp, puzzle, at, moved)
    if minimize_finish:
        first = _finish(pulp, problem, puzzle, at, moved)
    problem += first + _TIE * second
    problem.solve(pulp.PULP_CBC_CMD(msg=False, timeLimit=_SOLVER_DEADLINE_S))
    if pulp.LpStatus[problem.status] != "Optimal":
        raise RuntimeError(f"the solver did not place this DAG: {pulp.LpStatus[problem.status]}")
    return [max(options, key=lambda cloud, n=n: at[n][cloud].value()) for n, options in enumerate(at)]


def _solver() -> Any:
    try:
        import pulp  # type: ignore[import-untyped]  # 40 ms, and only a DAG that is no chain needs it
    except ImportError as exc:
        raise RuntimeError("a DAG that is not a chain needs the PuLP package to be placed") from exc
    return pulp


def _variables(pulp: Any, problem: Any, puzzle: Puzzle) -> tuple[list[dict[str, Any]], dict[Any, Any]]:
    """Where each task is (one place each), and for each edge which pair of clouds it crosses."""
    at = [
        {cloud: problem.add_variable(f"at_{n}_{i}", cat="Binary") for i, cloud in enumerate(options)}
        for n, options in enumerate(puzzle.options)
    ]
    for places in at:
        problem += pulp.lpSum(places.values()) == 1
    moved: dict[Any, Any] = {}
    for (u, v), values in puzzle.edges.items():
        for i, (pair, value) in enumerate(values.items()):
            if value == (0.0, 0.0):
                continue
            # A real number is enough: costs are positive, so it sits at the larger of 0 and "both ends are there".
            variable = moved[u, v, pair] = problem.add_variable(f"moved_{u}_{v}_{i}", lowBound=0)
            problem += variable >= at[u][pair[0]] + at[v][pair[1]] - 1
    return at, moved


def _totals(pulp: Any, puzzle: Puzzle, at: list[dict[str, Any]], moved: dict[Any, Any]) -> tuple[Any, Any]:
    """Both objectives, summed over tasks and edges."""
    totals = []
    for which in (0, 1):
        terms = [
            _finite(value[which]) * at[n][cloud]
            for n, options in enumerate(puzzle.options)
            for cloud, value in options.items()
        ]
        terms += [puzzle.edges[u, v][pair][which] * variable for (u, v, pair), variable in moved.items()]
        totals.append(pulp.lpSum(terms))
    return totals[0], totals[1]


def _finish(pulp: Any, problem: Any, puzzle: Puzzle, at: list[dict[str, Any]], moved: dict[Any, Any]) -> Any:
    """The time at which everything is done, as a variable; each task begins when what it waits for has arrived."""
    done = [problem.add_variable(f"done_{n}", lowBound=0) for n in range(len(at))]
    end = problem.add_variable("end", lowBound=0)
    for n, options in enumerate(puzzle.options):
        taken = pulp.lpSum(value[0] * at[n][cloud] for cloud, value in options.items())
        problem += done[n] >= taken
        problem += end >= done[n]
        for (u, v), values in puzzle.edges.items():
            if v == n:
                transfer = pulp.lpSum(
                    value[0] * moved[u, v, pair] for pair, value in values.items() if (u, v, pair) in moved
                )
                problem += done[n] >= done[u] + transfer + taken
    return end


def _sum(*values: Value) -> Value:
    return sum(value[0] for value in values), sum(value[1] for value in values)


def _finite(value: float) -> float:
    """Solvers take no infinity: an unknown price becomes one that no real one reaches."""
    return 1e9 if math.isinf(value) else value
