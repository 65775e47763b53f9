"""Offers, prices and the optimizer: where a task could run, what it costs there, and why not elsewhere.

Read `offers` (what an offer is), `ask` (what is asked), `catalog` (what fits), `candidates` (where to try),
`optimizer` (what is best), `whynot` (what rules the rest out). `refresh` is the only part that reaches out.
Names are loaded when they are first used: a command that prints no price pays for none.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from skyinfra.catalog.ask import Ask, Bound, asks_of
    from skyinfra.catalog.candidate_table import candidate_rows
    from skyinfra.catalog.candidates import Candidate, candidates_of
    from skyinfra.catalog.catalog import Catalog
    from skyinfra.catalog.listing import InstanceTypeInfo, list_accelerator_counts, list_accelerators
    from skyinfra.catalog.offers import LiveCatalog, Offer
    from skyinfra.catalog.optimizer import Optimizer, Plan, TaskPlan, apply_plan, optimize, plan_dag
    from skyinfra.catalog.pool import PoolCatalog
    from skyinfra.catalog.prices import CatalogOffers
    from skyinfra.catalog.whynot import Refusal, explain, why_not

__all__ = [
    "Ask",
    "Bound",
    "Candidate",
    "Catalog",
    "CatalogOffers",
    "InstanceTypeInfo",
    "LiveCatalog",
    "Offer",
    "Optimizer",
    "Plan",
    "PoolCatalog",
    "Refusal",
    "TaskPlan",
    "apply_plan",
    "asks_of",
    "candidate_rows",
    "candidates_of",
    "explain",
    "list_accelerator_counts",
    "list_accelerators",
    "optimize",
    "plan_dag",
    "why_not",
]

_HOMES = {
    "ask": ("Ask", "Bound", "asks_of"),
    "candidate_table": ("candidate_rows",),
    "candidates": ("Candidate", "candidates_of"),
    "catalog": ("Catalog",),
    "listing": ("InstanceTypeInfo", "list_accelerator_counts", "list_accelerators"),
    "offers": ("LiveCatalog", "Offer"),
    "optimizer": ("Optimizer", "Plan", "TaskPlan", "apply_plan", "optimize", "plan_dag"),
    "pool": ("PoolCatalog",),
    "prices": ("CatalogOffers",),
    "whynot": ("Refusal", "explain", "why_not"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)
