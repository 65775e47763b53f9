"""Job logs on their way from the agent to the client: the bytes untouched, the offsets with them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager

from skyinfra.model.exceptions import SkyletUnavailableError
from skyinfra.model.states import ClusterStatus
from skyinfra.server.answers import JobNotFound
from skyinfra.server.fleet.clusters import Clusters
from skyinfra.server.fleet.jobs import Jobs
from skyinfra.server.fleet.ports import Agent, AgentError, Unreachable
from skyinfra.server.fleet.reach import Reach

__all__ = ["Logs"]


class Logs:
    def __init__(self, clusters: Clusters, reach: Reach, jobs: Jobs) -> None:
        self._clusters = clusters
        self._reach = reach
        self._jobs = jobs

    async def open(
        self, workspace: str, name: str, job: str, *, rank: int | None, offset: int, follow: bool, tail: int
    ) -> tuple[dict[str, str], AsyncIterator[bytes]]:
        """Headers and bytes: of one rank, or of all together. Raises `ClusterDoesNotExist`, `ClusterNotUpError` (it is
        stopped), `JobNotFound`; `SkyletUnavailableError`: ask again."""
        async with AsyncExitStack() as stack:
            agent, job_id = await self._agent_of(stack, workspace, name, job)
            with _translated(name, job_id):
                asked = agent.log(job_id, rank=rank, offset=offset, follow=follow, tail=tail or None)
                log = await stack.enter_async_context(asked)
            headers = {"X-Start-Offset": str(log.start_offset), "X-Job-State": log.state, "X-Job-Id": str(job_id)}
            return headers, _until_lost(stack.pop_all(), log.chunks)

    async def files(self, workspace: str, name: str, job: str) -> tuple[dict[str, str], AsyncIterator[bytes]]:
        """A tar. Raises as `open`."""
        async with AsyncExitStack() as stack:
            agent, job_id = await self._agent_of(stack, workspace, name, job)
            with _translated(name, job_id):
                chunks = await stack.enter_async_context(agent.job_files(job_id))
            return {"X-Job-Id": str(job_id)}, _until_lost(stack.pop_all(), chunks)

    async def _agent_of(self, stack: AsyncExitStack, workspace: str, name: str, job: str) -> tuple[Agent, int]:
        """A connection of its own: a log may be followed for days, by any number of people."""
        cluster = await self._clusters.get(workspace, name)
        if cluster.status == ClusterStatus.STOPPED.name:  # nobody need wait for that agent
            await self._clusters.get_up(workspace, name)
        job_id = (await self._jobs.row(workspace, name, job))["job_id"]
        with _translated(name, job_id):
            return await stack.enter_async_context(self._reach.own_connection(cluster)), job_id


@contextmanager
def _translated(name: str, job_id: int) -> Iterator[None]:
    try:
        yield
    except Unreachable as error:
        raise SkyletUnavailableError(f"the agent of cluster '{name}' does not answer: {error}") from error
    except AgentError as error:
        if error.type == "not_found":
            raise JobNotFound(f"there is no job {job_id} on cluster '{name}'") from error
        raise


async def _until_lost(stack: AsyncExitStack, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """An agent that is lost ends the stream like a job that is over: the client looks at the job's row to tell."""
    async with stack:
        try:
            async for chunk in chunks:
                yield chunk
        except Unreachable:
            return
