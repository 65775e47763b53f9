"""The table that `launch` shows before it asks: one row per cloud, accelerator and way of buying, cheapest place each.

Values as text, no layout: the CLI draws it. Context-wise clouds (Kubernetes, ssh) have one row per context or pool.
"""

from __future__ import annotations

from typing import NamedTuple

from skyinfra.catalog.objective import Ranked
from skyinfra.catalog.optimizer import Plan, TaskPlan

__all__ = ["COLUMNS", "CandidateRow", "candidate_rows", "plan_text", "task_text"]

COLUMNS = ("INFRA", "INSTANCE", "vCPUs", "Mem(GB)", "GPUS", "COST ($)", "CHOSEN")
_BY_REGION = ("kubernetes", "ssh", "slurm")


class CandidateRow(NamedTuple):
    """One row, in the columns' order."""

    infra: str
    instance: str
    vcpus: str
    memory: str
    gpus: str
    cost: str
    chosen: bool


def candidate_rows(plan: TaskPlan) -> list[CandidateRow]:
    """The rows of a task's plan, best first."""
    shown: dict[tuple[object, ...], Ranked] = {}
    for one in (plan.chosen, *plan.candidates):
        shown.setdefault(_row_key(one), one)
    rows = [(one, _row(one, chosen=one is plan.chosen)) for one in shown.values()]
    order = {id(one): number for number, one in enumerate(plan.candidates)}
    return [row for one, row in sorted(rows, key=lambda pair: order.get(id(pair[0]), 0))]


def _row_key(one: Ranked) -> tuple[object, ...]:
    offer = one.candidate.offer
    region = offer.region if offer.cloud in _BY_REGION else None
    return offer.cloud, region, offer.accelerator, offer.accelerator_count, one.candidate.spot


def _row(one: Ranked, chosen: bool) -> CandidateRow:
    from skyinfra.model.clouds import InfraInfo

    candidate, offer = one.candidate, one.candidate.offer
    return CandidateRow(
        InfraInfo(offer.cloud, offer.region or None, candidate.zone).formatted_str(),
        offer.instance_type + ("[Spot]" if candidate.spot else ""),
        _amount(offer.vcpus),
        _amount(offer.memory_gib),
        "-" if offer.accelerator is None else f"{offer.accelerator}:{offer.accelerator_count:g}",
        "-" if one.hourly is None else f"{one.hourly:.2f}",
        chosen,
    )


def _amount(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"


def task_text(plan: TaskPlan) -> str:
    """A task's table as plain text, the columns padded."""
    cells = [COLUMNS, *((*row[:6], "✔" if row.chosen else "") for row in candidate_rows(plan))]
    widths = [max(len(row[n]) for row in cells) for n in range(len(COLUMNS))]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in cells
    )


def plan_text(plan: Plan) -> str:
    """A plan as plain text: each task's table, then the totals."""
    lines: list[str] = []
    for task_plan in plan.tasks:
        nodes = task_plan.task.num_nodes
        lines.append(f"{task_plan.task.name or 'task'}: {nodes} node{'s' if nodes > 1 else ''}")
        lines.append(task_text(task_plan))
    cost = "not known" if plan.total_cost is None else f"${plan.total_cost:.2f}"
    lines.append(f"Estimated cost: {cost}; estimated time: {plan.total_time_s / 3600:.1f} h")
    return "\n".join(lines)
