"""Where a new cluster may be made: the catalog's candidates on enabled clouds; those short of late come last."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from skyinfra.catalog.candidate_table import task_text
from skyinfra.catalog.local import Candidate
from skyinfra.catalog.objective import Ranked
from skyinfra.catalog.optimizer import TaskPlan, plan_task
from skyinfra.model.config import Config
from skyinfra.model.exceptions import ResourcesUnavailableError, with_hint
from skyinfra.model.resources import Resources
from skyinfra.model.spec import ClusterSpec
from skyinfra.model.states import OptimizeTarget
from skyinfra.model.task import Task
from skyinfra.server.fleet.clouds import Clouds
from skyinfra.server.fleet.failover import Failure, block_of, shortage_block
from skyinfra.stacks.clouds.failures import CloudError
from skyinfra.stacks.operation import OperationResult
from skyinfra.store import clusters as rows
from skyinfra.store.database import Database

__all__ = ["Placement"]

_PLACED_BY = ("name", "num_nodes", "resources", "inputs", "outputs")
"""The parts of a task that decide where it may run; the rest is not looked at here."""


class Placement:
    def __init__(self, db: Database, clouds: Clouds, clock: Callable[[], float] = time.time) -> None:
        self._db = db
        self._clouds = clouds
        self._clock = clock

    async def rank(
        self, task: Mapping[str, Any], config: Config, minimize: str = "COST", failures: Sequence[Failure] = ()
    ) -> tuple[list[Candidate], str]:
        """Where a task may go, best first and never empty, and the table of candidates for people.

        What failed in this round is left out; what was short a while ago comes last.

        Raises `ResourcesUnavailableError` with what rules each offer out, `NoCloudAccessError` for a cloud that is not
        enabled.
        """
        blocked = [block_of(one) for one in failures]
        short = await self._db.read(lambda db: rows.shortages_now(db, self._clock()))
        short_of = [shortage_block(*key) for key in short]
        target = OptimizeTarget[minimize]
        plans = await asyncio.to_thread(self._plans, task, config, target, blocked, short_of)
        places = dict.fromkeys(_place(one) for plan in plans for one in plan.candidates)
        tried = {one.candidate for one in failures}
        left = [place for place in places if place not in tried]  # a block may not fit a part of a device
        if not left:
            raise ResourcesUnavailableError("every place was tried")
        return left, task_text(plans[0])

    async def resolve(
        self, spec: ClusterSpec, wanted: Mapping[str, Any], config: Config
    ) -> tuple[ClusterSpec, OperationResult | None]:
        """The spec as its cloud can carry it out; with a failed result, as it was, when the cloud refuses the place."""
        try:
            return await asyncio.to_thread(self._clouds.resolve, spec, wanted, config), None
        except CloudError as error:
            return spec, OperationResult("failed", 0, error.kind, error.words)

    def _plans(
        self,
        config_of_task: Mapping[str, Any],
        config: Config,
        minimize: OptimizeTarget,
        blocked: Sequence[Resources],
        short_of: Sequence[Resources],
    ) -> list[TaskPlan]:
        """Without what is short, if that leaves any, then with it. The clouds are asked once for both."""
        task = Task.from_yaml_config({k: v for k, v in config_of_task.items() if k in _PLACED_BY})
        asked = list(task.resources)
        task.set_resources(self._clouds.reachable(task.resources, config))
        catalog = self._clouds.catalog(config, asked)

        def plan(out: Sequence[Resources]) -> TaskPlan:
            ranked = plan_task(task, catalog, minimize, out, {})
            return TaskPlan(task, ranked[0], tuple(ranked))

        try:
            whole = plan(blocked)
        except ResourcesUnavailableError as error:
            hints = (getattr(error, "hint", None), self._clouds.host(config))
            raise with_hint(error, "; ".join(hint for hint in hints if hint)) from None
        if not short_of:
            return [whole]
        try:
            return [plan([*blocked, *short_of]), whole]
        except ResourcesUnavailableError:
            return [whole]  # everything is short: try it all the same


def _place(one: Ranked) -> Candidate:
    candidate, offer = one.candidate, one.candidate.offer
    gpus = None
    if offer.accelerator is not None:
        gpus = (offer.accelerator, max(1, math.ceil(offer.accelerator_count)))  # of a fraction, the whole device
    return Candidate(
        cloud=offer.cloud,
        region=offer.region,
        instance_type=offer.instance_type,
        cpus=offer.vcpus or 0.0,
        memory_gb=offer.memory_gib or 0.0,
        gpus=gpus,
        disk_gb=candidate.asked.disk_size,
        spot=candidate.spot,
        price_per_hour=candidate.hourly or 0.0,
        zone=candidate.zone,
    )
