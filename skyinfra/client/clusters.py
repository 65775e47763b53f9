"""The cluster verbs, from launch to down. Each hands in a request and returns its id.

Checked here is only what must be known before files travel; everything else is the server's to judge.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from skyinfra.client import caller, config
from skyinfra.client.requests import submit
from skyinfra.model.requests import RequestId
from skyinfra.model.states import AutostopWaitFor, JobStatus, OptimizeTarget, StatusRefreshMode

if TYPE_CHECKING:
    from skyinfra.model.dag import Dag
    from skyinfra.model.handles import ClusterHandle
    from skyinfra.model.records import Record
    from skyinfra.model.task import Task

__all__ = [
    "autostop",
    "cancel",
    "cost_report",
    "down",
    "endpoints",
    "exec",
    "job_status",
    "launch",
    "queue",
    "start",
    "status",
    "stop",
]


def launch(
    task: Task | Dag,
    cluster_name: str | None = None,
    retry_until_up: bool = False,
    idle_minutes_to_autostop: int | None = None,
    wait_for: AutostopWaitFor | None = None,
    dryrun: bool = False,
    down: bool = False,
    backend: Any = None,
    optimize_target: OptimizeTarget = OptimizeTarget.COST,
    no_setup: bool = False,
    clone_disk_from: str | None = None,
    fast: bool = False,
    resize: bool = False,
    *,
    replace_nodes: bool = False,
    _progress: Callable[[str, int, int], None] | None = None,
) -> RequestId[tuple[int | None, ClusterHandle | None]]:
    """Make the cluster if need be, and run the task on it.

    Its files are packed and sent before this returns, so they may change or go afterwards. `get` yields
    ``(job_id, handle)``; of a `dryrun`, `plan_of` has the plan. `replace_nodes` (our own) consents to machines of a
    cluster that exists being deleted or replaced. Raises `TypeError` for what is no task, `ValueError` for a file that
    cannot be sent and for `resize` without a cluster name, `NotImplementedError` for `clone_disk_from`.
    """
    if clone_disk_from is not None:
        raise NotImplementedError("clone_disk_from is not supported")
    if resize and cluster_name is None:
        raise ValueError("resize needs a cluster name")
    _refuse_backend(backend)
    one = _one_task(task)
    if cluster_name is None:
        cluster_name = caller.generated_cluster_name()
    _check_name(cluster_name)
    body = {
        "task": _config(one),
        "cluster_name": cluster_name,
        "retry_until_up": retry_until_up,
        "idle_minutes_to_autostop": idle_minutes_to_autostop,
        "wait_for": _value(wait_for),
        "dryrun": dryrun,
        "down": down,
        "optimize_target": optimize_target.name,
        "no_setup": no_setup,
        "fast": fast,
        "resize": resize,
        "replace_nodes": replace_nodes,
        "blobs": {} if dryrun else _send(_workdir(one) | _local_mounts(one), _progress),
    }
    return submit("launch", {**body, **caller.about(), **config.sent()})


def exec(
    task: Task | Dag,
    cluster_name: str | None = None,
    dryrun: bool = False,
    down: bool = False,
    backend: Any = None,
    *,
    _progress: Callable[[str, int, int], None] | None = None,
) -> RequestId[tuple[int | None, ClusterHandle | None]]:
    """Run the task on a cluster that is up; of its files only the workdir travels. `get` yields ``(job_id, handle)``.

    Raises as `launch`, and `ValueError` without a cluster name.
    """
    if cluster_name is None:
        raise ValueError("exec needs the name of a cluster")
    _refuse_backend(backend)
    one = _one_task(task)
    body = {
        "task": _config(one),
        "cluster_name": cluster_name,
        "dryrun": dryrun,
        "down": down,
        "blobs": {} if dryrun else _send(_workdir(one), _progress),
    }
    return submit("exec", {**body, **caller.about(), **config.sent()})


def stop(
    cluster_name: str, purge: bool = False, graceful: bool = False, graceful_timeout: int | None = None
) -> RequestId[None]:
    """Stop a cluster: its processes end, its disk stays; `start` or `launch` brings it back.

    `graceful` ends its jobs and flushes its mounts first, in `graceful_timeout` seconds; `purge` calls it stopped even
    if its cloud fails. `get` raises `ClusterDoesNotExist`, and `NotSupportedError` for a spot cluster.
    """
    body = {
        "cluster_name": cluster_name,
        "purge": purge,
        "graceful": graceful,
        "graceful_timeout": graceful_timeout,
    }
    return submit("stop", {**body, **caller.about()})


def start(
    cluster_name: str,
    idle_minutes_to_autostop: int | None = None,
    wait_for: AutostopWaitFor | None = None,
    retry_until_up: bool = False,
    down: bool = False,
    force: bool = False,
) -> RequestId[ClusterHandle]:
    """Start a cluster that is stopped. On one that is up nothing happens, unless `force` starts its agent anew.

    Autostop is as it was before the stop, unless idle minutes are given. `get` yields the handle, and raises
    `ClusterDoesNotExist` and `ResourcesUnavailableError`. Raises `ValueError` for `down` without idle minutes.
    """
    if down and idle_minutes_to_autostop is None:
        raise ValueError("down needs idle_minutes_to_autostop")
    body = {
        "cluster_name": cluster_name,
        "idle_minutes_to_autostop": idle_minutes_to_autostop,
        "wait_for": _value(wait_for),
        "retry_until_up": retry_until_up,
        "down": down,
        "force": force,
    }
    return submit("start", {**body, **caller.about()})


def autostop(
    cluster_name: str,
    idle_minutes: int,
    wait_for: AutostopWaitFor | None = None,
    down: bool = False,
    hook: str | None = None,
    hook_timeout: int | None = None,
) -> RequestId[None]:
    """Stop (or, with `down`, remove) the cluster when it was idle for so long; negative minutes call that off.

    Each call begins the idle time anew. `hook` runs on the cluster before. `get` raises `ClusterDoesNotExist`,
    `ClusterNotUpError`, `NotSupportedError`. Raises `ValueError` for `hook_timeout` without `hook`.
    """
    if hook_timeout is not None and hook is None:
        raise ValueError("hook_timeout needs a hook")
    body = {
        "cluster_name": cluster_name,
        "idle_minutes": idle_minutes,
        "wait_for": _value(wait_for),
        "down": down,
        "hook": hook,
        "hook_timeout": hook_timeout,
    }
    return submit("autostop", {**body, **caller.about()})


def down(
    cluster_name: str, purge: bool = False, graceful: bool = False, graceful_timeout: int | None = None
) -> RequestId[None]:
    """Remove a cluster and everything that it holds. `get` returns when the cloud shows nothing of it."""
    body = {
        "cluster_name": cluster_name,
        "purge": purge,
        "graceful": graceful,
        "graceful_timeout": graceful_timeout,
    }
    return submit("down", {**body, **caller.about()})


def status(
    cluster_names: Sequence[str] | None = None,
    refresh: StatusRefreshMode = StatusRefreshMode.NONE,
    all_users: bool = False,
) -> RequestId[list[Record]]:
    """Clusters, by name or glob; unknown names are left out."""
    names = [cluster_names] if isinstance(cluster_names, str) else cluster_names
    body = {"cluster_names": names and list(names), "refresh": refresh.name, "all_users": all_users}
    return submit("status", {**body, "user": caller.user_name(), "workspace": caller.named_workspace()})


def queue(cluster_name: str, skip_finished: bool = False, all_users: bool = False) -> RequestId[list[Record]]:
    """The jobs of a cluster."""
    body = {"cluster_name": cluster_name, "skip_finished": skip_finished, "all_users": all_users}
    return submit("queue", {**body, **caller.about()})


def job_status(
    cluster_name: str, job_ids: Sequence[int] | None = None
) -> RequestId[dict[int | None, JobStatus | None]]:
    """States by job id; of the latest job without ids (``{None: None}`` when there is none)."""
    body = {"cluster_name": cluster_name, "job_ids": None if job_ids is None else list(job_ids)}
    return submit("job_status", {**body, **caller.about()})


def endpoints(cluster: str, port: int | str | None = None) -> RequestId[dict[int, str]]:
    """Where the open ports of a cluster can be reached: ``{port: "host:port"}``.

    `get` raises `ClusterNotUpError` (also for an unknown cluster) and `PortDoesNotExistError`.
    """
    return submit("endpoints", {"cluster_name": cluster, "port": port, **caller.about()})


def cost_report(days: int | None = None, *, _all_users: bool = True) -> RequestId[list[Record]]:
    """What clusters cost, those that ended within the last `days` (30) included."""
    return submit("cost_report", {"days": days, "all_users": _all_users, **caller.about()})


def cancel(
    cluster_name: str, all: bool = False, all_users: bool = False, job_ids: Sequence[int] | None = None
) -> RequestId[None]:
    """Cancel jobs: the given ones, all of them, or the caller's newest running one. Finished jobs are left alone.

    Raises `NotSupportedError` for `all` together with `job_ids`.
    """
    if all and job_ids is not None:
        from skyinfra.model.exceptions import NotSupportedError

        raise NotSupportedError("all and job_ids exclude each other")
    body = {
        "cluster_name": cluster_name,
        "all": all,
        "all_users": all_users,
        "job_ids": None if job_ids is None else list(job_ids),
    }
    return submit("cancel", {**body, **caller.about()})


def _one_task(task: Any) -> Any:
    """A copy of the one task meant, so that the caller's stays as it is."""
    from skyinfra.model.dag import Dag
    from skyinfra.model.task import Task

    if isinstance(task, Dag):
        if len(task.tasks) != 1:
            raise ValueError(f"a Dag must have exactly one task here, not {len(task.tasks)}")
        task = task.tasks[0]
    if not isinstance(task, Task):
        raise TypeError(f"a Task or a Dag is needed, not {type(task).__name__}")
    return copy.deepcopy(task).update_envs_and_secrets_from_workdir()


def _refuse_backend(backend: Any) -> None:
    if backend is not None:
        from skyinfra.model.exceptions import NotSupportedError

        raise NotSupportedError("backend is not in skyinfra: a cluster is a stack")


def _check_name(cluster_name: str) -> None:
    from skyinfra.model.names import validate_cluster_name

    validate_cluster_name(cluster_name)


def _config(task: Any) -> dict[str, Any]:
    return task.to_yaml_config()


def _value(member: Any) -> Any:
    return getattr(member, "value", member)


def _workdir(task: Any) -> dict[str, str]:
    from skyinfra.client.files import WORKDIR

    return {WORKDIR: task.workdir} if isinstance(task.workdir, str) else {}


def _local_mounts(task: Any) -> dict[str, str]:
    from skyinfra.client.files import is_local

    return {target: source for target, source in (task.file_mounts or {}).items() if is_local(source)}


def _send(sources: dict[str, str], progress: Callable[[str, int, int], None] | None) -> dict[str, Any]:
    if not sources:
        return {}
    from skyinfra.client.files import send_trees

    return send_trees(sources, progress)
