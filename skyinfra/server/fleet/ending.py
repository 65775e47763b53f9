"""What comes before a cluster is stopped or removed: its agent takes no new jobs, graceful ends, hooks.

None of it may keep a cluster from ending: an agent that does not answer is said, and left.
"""

from __future__ import annotations

import asyncio
from typing import Any

from skyinfra.model.states import ClusterStatus
from skyinfra.runtime.protocol import FINAL_STATES, HOOKS_WAIT_S
from skyinfra.server.fleet.ports import Agent, AgentError, Unreachable
from skyinfra.server.fleet.reach import Reach
from skyinfra.server.requests.steps import StepContext

__all__ = ["Ending"]

GRACE_DEFAULT_S = 60.0
RPC_S = 10.0


class Ending:
    def __init__(self, reach: Reach) -> None:
        self._reach = reach

    async def drain(self, ctx: StepContext, cluster: Any) -> None:
        """From here on no job is accepted, so that none slips in before the end. `graceful` ends the jobs in time."""
        if _is_off(cluster):
            return
        try:
            async with self._reach.head(cluster) as agent:
                await asyncio.wait_for(agent.drain(f"request {ctx.request_id}"), RPC_S)
                if ctx.body.get("graceful"):
                    limit = ctx.body.get("graceful_timeout") or GRACE_DEFAULT_S
                    unfinished = await _unfinished(agent)
                    await asyncio.wait_for(asyncio.gather(*(agent.cancel(j) for j in unfinished)), limit)
        except (Unreachable, AgentError, TimeoutError) as error:
            ctx.say(f"The agent of {cluster.name} was not drained ({error or 'it did not answer in time'})")

    async def drain_if_idle(self, ctx: StepContext, cluster: Any, newest_job: int) -> bool:
        """Drained, and nothing unfinished or newer than `newest_job` there; False: it works, and takes jobs again."""
        if _is_off(cluster):
            return True
        try:
            async with self._reach.head(cluster) as agent:
                await asyncio.wait_for(agent.drain(f"request {ctx.request_id}"), RPC_S)
                jobs = await agent.jobs()
                if all(job.state in FINAL_STATES and job.job_id <= newest_job for job in jobs):
                    return True
                await agent.undrain()
                return False
        except (Unreachable, AgentError, TimeoutError) as error:
            ctx.say(f"The agent of {cluster.name} was not drained ({error or 'it did not answer in time'})")
            return False

    async def unfinished(self, cluster: Any) -> list[int]:
        """Unfinished jobs. Raises `Unreachable`, `AgentError`."""
        async with self._reach.head(cluster) as agent:
            return await _unfinished(agent)

    async def undrain(self, cluster: Any) -> None:
        """The cluster stays: jobs are accepted again. An agent that is away starts so."""
        try:
            async with self._reach.head(cluster) as agent:
                await asyncio.wait_for(agent.undrain(), RPC_S)
        except (Unreachable, AgentError, TimeoutError):
            pass  # nobody there to tell

    async def hooks(self, ctx: StepContext, cluster: Any, event: str, *, auto: bool = False) -> None:
        """Run the hooks bound to `event` on the head, however long they may take. Their failures are theirs."""
        bound = [hook for hook in cluster.spec.get("hooks") or () if event in (hook.get("events") or (event,))]
        if auto and (cluster.spec.get("autostop") or {}).get("hook"):
            bound.append({})
        if not bound or _is_off(cluster):
            return
        ctx.say(f"Running {len(bound)} hook(s) before {'it stops' if event == 'stop' else 'the end'}")
        try:
            async with self._reach.own_connection(cluster) as agent:
                while not await asyncio.wait_for(
                    agent.run_hooks(event, ctx.request_id, auto=auto), HOOKS_WAIT_S + RPC_S
                ):
                    pass
        except (Unreachable, AgentError, TimeoutError) as error:
            ctx.say(f"The hooks of {cluster.name} did not all run: {error or 'its agent did not answer in time'}")


async def _unfinished(agent: Agent) -> list[int]:
    return [job.job_id for job in await agent.jobs() if job.state not in FINAL_STATES]


def _is_off(cluster: Any) -> bool:
    return cluster.status == ClusterStatus.STOPPED.name
