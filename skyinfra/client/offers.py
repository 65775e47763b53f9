"""Requests about where tasks could run: optimize, list_accelerators, list_accelerator_counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from skyinfra.client import caller, config
from skyinfra.client.requests import AnsweredId, submit
from skyinfra.model.requests import RequestId
from skyinfra.model.states import OptimizeTarget

if TYPE_CHECKING:
    from skyinfra.catalog.listing import InstanceTypeInfo
    from skyinfra.model.dag import Dag

__all__ = ["list_accelerator_counts", "list_accelerators", "optimize"]

SENT = ("name", "num_nodes", "resources", "inputs", "outputs")
"""The parts of a task that decide where it may run. What runs there, and its secrets, stay here."""

Clouds = Sequence[str] | str | None


def optimize(
    dag: Dag, minimize: OptimizeTarget = OptimizeTarget.COST, admin_policy_request_options: Any = None
) -> RequestId[Dag]:
    """The best places for the tasks of a DAG on the enabled clouds. `get` yields a copy with `best_resources` set.

    Raises `TypeError` for what is no Dag, `NotSupportedError` for a task with a time estimator, which is a function and
    cannot travel; `get` raises `ResourcesUnavailableError` (saying why) and `NoCloudAccessError`.
    """
    from skyinfra.model.dag import Dag
    from skyinfra.model.exceptions import NotSupportedError, with_hint

    del admin_policy_request_options  # there is no policy that could read them
    if not isinstance(dag, Dag):
        raise TypeError(f"a Dag is needed, not {type(dag).__name__}")
    if any(task._time_estimator is not None for task in dag.tasks):
        raise with_hint(
            NotSupportedError("a time estimator is a function and cannot be sent to the server"),
            "sky.Optimizer.optimize(dag) runs in this process and calls it",
        )
    whole = [task.to_yaml_config() for task in dag.tasks]
    number = {id(task): n for n, task in enumerate(dag.tasks)}
    graph = {
        "name": dag.name,
        "execution": "parallel" if dag.is_job_group() else "serial",
        "inter_connection": dag.inter_connection,
        "tasks": [{key: one[key] for key in SENT if key in one} for one in whole],
        "edges": [[number[id(a)], number[id(b)]] for a, b in dag.edges],
    }
    body = {"dag": graph, "minimize": minimize.name}
    request_id = submit("optimize", {**body, **caller.about(), **config.sent()})
    if isinstance(request_id, AnsweredId) and request_id.answer.get("status") == "SUCCEEDED":
        request_id.answer["result"]["tasks"] = whole  # what was not sent is put back
    return request_id


def list_accelerators(
    gpus_only: bool = True,
    name_filter: str | None = None,
    region_filter: str | None = None,
    quantity_filter: int | None = None,
    clouds: Clouds = None,
    all_regions: bool = False,
    require_price: bool = True,
    case_sensitive: bool = True,
) -> RequestId[dict[str, list[InstanceTypeInfo]]]:
    """Accelerators as the server's catalogs have them, its host's own included; see `sky.list_accelerators`."""
    body = {
        **_filters(gpus_only, name_filter, region_filter, quantity_filter, clouds),
        "all_regions": all_regions,
        "require_price": require_price,
        "case_sensitive": case_sensitive,
    }
    return submit("list_accelerators", {**body, **caller.about()})


def list_accelerator_counts(
    gpus_only: bool = True,
    name_filter: str | None = None,
    region_filter: str | None = None,
    quantity_filter: int | None = None,
    clouds: Clouds = None,
) -> RequestId[dict[str, list[float]]]:
    """For each accelerator the numbers in which it comes, as the server's catalogs have it."""
    body = _filters(gpus_only, name_filter, region_filter, quantity_filter, clouds)
    return submit("list_accelerator_counts", {**body, **caller.about()})


def _filters(
    gpus_only: bool, name: str | None, region: str | None, quantity: int | None, clouds: Clouds
) -> dict[str, Any]:
    return {
        "gpus_only": gpus_only,
        "name_filter": name,
        "region_filter": region,
        "quantity_filter": quantity,
        "clouds": clouds if clouds is None or isinstance(clouds, str) else list(clouds),
    }
