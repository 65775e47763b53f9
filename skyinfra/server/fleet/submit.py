"""From a task to a job on a cluster: what launch and exec share, and what undoes it when they are cancelled."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from skyinfra.model.exceptions import ResourcesMismatchError
from skyinfra.runtime.protocol import JobSubmit
from skyinfra.server.fleet.clusters import Clusters, handle_of
from skyinfra.server.fleet.demand import Demand
from skyinfra.server.fleet.git import VARIABLES
from skyinfra.server.fleet.ports import Unreachable
from skyinfra.server.fleet.reach import Reach
from skyinfra.server.requests.steps import StepContext

__all__ = ["check_fits", "job_of", "submit_job", "withdraw_job"]


def check_fits(cluster: Any, demand: Demand) -> None:
    """Raises `ResourcesMismatchError` when no alternative of the task fits the nodes that are there."""
    slots = cluster.spec["slots"]
    if demand.num_nodes > len(slots):
        raise ResourcesMismatchError(
            f"Task requires {demand.num_nodes} nodes; cluster '{cluster.name}' has {len(slots)}."
        )
    node = slots[0]
    problems = []
    for wish in demand.wishes:
        problem = None
        if wish.cloud not in (None, cluster.spec["cloud"]):
            problem = f"{wish.cloud} asked, the cluster is on {cluster.spec['cloud']}"
        elif wish.cpus is not None and wish.cpus > node["cpus"]:
            problem = f"{wish.cpus:g} CPUs asked, a node has {node['cpus']:g}"
        elif wish.memory_gb is not None and wish.memory_gb > node["memory_gb"]:
            problem = f"{wish.memory_gb:g} GB of memory asked, a node has {node['memory_gb']:g}"
        elif wish.accelerator is not None:
            name, count = wish.accelerator
            there = node["gpus"] or ("no GPU", 0)
            if there[0] != name or count > there[1]:
                problem = f"{name}:{count:g} asked, a node has {there[0]}:{there[1]}"
        if problem is None:
            return
        problems.append(problem)
    raise ResourcesMismatchError(
        f"Requested resources do not match the existing cluster '{cluster.name}': {'; '.join(problems)}."
    )


def job_of(
    ctx: StepContext, cluster: Any, demand: Demand, *, no_setup: bool, git: Mapping[str, str] = MappingProxyType({})
) -> JobSubmit:
    """The job to submit; its key is the request's id, so that submitting again gives the same job.

    `git`: variables of a git workdir, as its nodes found it; what the client made of the ref gives way.
    """
    stamp = time.strftime("%Y-%m-%d-%H-%M-%S", time.gmtime(ctx.created_at)) + f"-{int(ctx.created_at % 1 * 1e6):06d}"
    several = len(cluster.spec["slots"]) > 1
    head = {"slot": 0, "env": {}, "ip": cluster.nodes[0].get("internal_ip") or "127.0.0.1"}
    return JobSubmit(
        key=ctx.request_id,
        name=demand.name,
        user=ctx.principal.user_name,
        # of several nodes the head's queue takes those that are free
        ranks=[{"slot": None, "env": {}} for _ in range(demand.num_nodes)] if several else [head],
        setup=None if no_setup else demand.setup,
        run=demand.run,
        envs={name: value for name, value in demand.envs.items() if not git or name not in VARIABLES} | dict(git),
        secrets=demand.secrets,
        demand={"cpus": 0.5, "gpus": demand.accelerators_per_node},
        task_id=f"sky-{stamp}_{cluster.name}",
        metadata={"git_commit": git["GIT_COMMIT_HASH"]} if "GIT_COMMIT_HASH" in git else {},
    )


async def submit_job(
    ctx: StepContext,
    reach: Reach,
    clusters: Clusters,
    cluster: Any,
    demand: Demand,
    *,
    no_setup: bool,
    git: Mapping[str, str],
) -> dict[str, Any]:
    """Submit and answer as `launch` and `exec` do. A task with neither run nor setup makes no job."""
    job_id = None
    if demand.run or (demand.setup and not no_setup):
        job = job_of(ctx, cluster, demand, no_setup=no_setup, git=git)
        job_id = await reach.patiently(ctx, cluster, lambda agent: agent.submit(job))
        ctx.say(f"Job submitted, ID: {job_id}")
    await clusters.change(cluster.id, last_use=ctx.entrypoint or f"sky.{ctx.verb}")
    return {"job_id": job_id, "handle": handle_of(cluster).to_json()}


async def withdraw_job(ctx: StepContext, reach: Reach, clusters: Clusters, prior: Mapping[str, Any]) -> None:
    """After a cancel: the job may have been accepted though its id never came back. It is found by its key."""
    cluster = await clusters.find(ctx.workspace, ctx.cluster_name)
    if cluster is None or ctx.step != "submit":
        return
    try:
        async with reach.head(cluster) as agent:
            for row in await agent.jobs():
                if row.key == ctx.request_id:
                    await agent.cancel(row.job_id)
    except Unreachable:
        pass  # nothing to withdraw it from; a job that lives on is in `queue`
