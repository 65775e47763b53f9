"""Reaching agents: who to talk to for a cluster, and patience while one is being brought back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar

from skyinfra.model.exceptions import ClusterNotUpError, NotSupportedError, with_hint
from skyinfra.model.states import ClusterStatus
from skyinfra.runtime.chunks import MissingChunk
from skyinfra.runtime.protocol import FilesApply, FilesMissing, NodeConfig
from skyinfra.server.blobs import Blobs
from skyinfra.server.fleet import git
from skyinfra.server.fleet.clusters import Clusters, handle_of
from skyinfra.server.fleet.ports import Agent, AgentError, Connect, Unreachable
from skyinfra.server.requests.steps import Park, StepContext

__all__ = ["Reach"]

T = TypeVar("T")

PATIENCE_S = 30.0
ASK_AGAIN_S = 0.5
WAITING = "unreachable_since"
WORKDIR = "~/sky_workdir"
_SEND_AGAIN = "the task's files are not on the server any more: launch it again"


class Reach:
    def __init__(
        self,
        clusters: Clusters,
        connect: Connect,
        blobs: Blobs,
        minute_s: float = 60.0,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clusters = clusters
        self._connect = connect
        self._blobs = blobs
        self._minute_s = minute_s
        self._ticks = ticks
        self._known: dict[str, tuple[Any, Agent]] = {}

    @asynccontextmanager
    async def head(self, cluster: Any) -> AsyncIterator[Agent]:
        """The head's agent, on the connections kept for it. Raises `Unreachable` when the cluster has no node."""
        channel = cluster.nodes[0].get("channel") if cluster.nodes else None
        kept = self._known.get(cluster.id)
        if kept is None or kept[0] != channel:
            agent = await self._open(cluster)
            if kept is not None:
                await kept[1].aclose()
            self._known[cluster.id] = kept = (channel, agent)
        yield kept[1]

    @asynccontextmanager
    async def own_connection(self, cluster: Any) -> AsyncIterator[Agent]:
        """The head's agent on a connection that nobody else waits for. Raises as `head`."""
        agent = await self._open(cluster)
        try:
            yield agent
        finally:
            await agent.aclose()

    async def _open(self, cluster: Any) -> Agent:
        if not cluster.nodes or cluster.nodes[0].get("channel") is None:
            raise Unreachable(f"cluster {cluster.name} has no node that runs")
        token = await self._clusters.token(cluster.id)
        return await self._connect(cluster.nodes[0], token.reveal())

    async def forget(self, cluster_id: str) -> None:
        """Close what is kept for a cluster that is gone."""
        kept = self._known.pop(cluster_id, None)
        if kept is not None:
            await kept[1].aclose()

    async def close(self) -> None:
        for cluster_id in list(self._known):
            await self.forget(cluster_id)

    async def patiently(self, ctx: StepContext, cluster: Any, call: Callable[[Agent], Awaitable[T]]) -> T:
        """`call` on the head's agent; while nobody answers the step parks, at most `PATIENCE_S` in all.

        Raises `ClusterNotUpError` when nobody answered, or when the cluster is going down.
        """
        try:
            async with self.head(cluster) as agent:
                result = await call(agent)
            ctx.memory.pop(WAITING, None)  # the next silence gets the whole patience again
            return result
        except Unreachable as error:
            # not `ctx.now()`: a correction of the time of day is no reason to give up, or to wait for an hour
            since = ctx.memory.setdefault(WAITING, self._ticks())
            if self._ticks() - since < PATIENCE_S:
                raise Park(ctx.now() + ASK_AGAIN_S, f"waits for the agent of {cluster.name}: {error}") from error
            raise with_hint(
                ClusterNotUpError(
                    f"Cluster '{cluster.name}' is not reachable: {error}",
                    ClusterStatus[cluster.status],
                    handle_of(cluster),
                ),
                f"`skyinfra launch -c {cluster.name} …` brings it up again, `skyinfra down {cluster.name}` removes it",
            ) from error
        except AgentError as error:
            if error.type != "draining":
                raise
            raise ClusterNotUpError(
                f"Cluster '{cluster.name}' takes no new jobs: it is going down.", ClusterStatus.UP, handle_of(cluster)
            ) from error

    @staticmethod
    def has_waited(ctx: StepContext) -> bool:
        """Whether this request's step has parked because nobody answered, and nobody has since."""
        return WAITING in ctx.memory

    def config_of(self, cluster: Any) -> NodeConfig:
        """The head's place: the node table, the cluster's name, its share of the machine, and when it ends."""
        slot, nodes = cluster.spec["slots"][0], cluster.nodes
        facts = {"cluster_name": cluster.name, "cloud": cluster.spec["cloud"], "region": cluster.spec["region"]}
        table = [{"slot": n["slot"], "ip": n["internal_ip"], "port": 0} for n in nodes]
        return NodeConfig(
            node_table=table,
            cluster={**facts, "zone": None},
            cpus=slot["cpus"],
            gpus=list((nodes[0].get("gpus") or []) if nodes else []),
            autostop=cluster.spec.get("autostop"),
            hooks=list(cluster.spec.get("hooks") or ()),
            minute_s=self._minute_s,
        )

    async def check_out(self, ctx: StepContext, cluster: Any) -> dict[str, str]:
        """Of a task whose workdir is a git repository: fetch it; what the job finds of it in its environment.

        Raises `GitError`, and as `patiently`.
        """
        task = ctx.body["task"]
        if not git.is_git(task):
            return {}
        found = await self.patiently(ctx, cluster, lambda agent: git.check_out(agent, task))
        name = found.get("GIT_BRANCH") or found.get("GIT_TAG") or ""
        ctx.say(f"Workdir is {found['GIT_COMMIT_HASH'][:10]}{f' ({name})' if name else ''} of {task['workdir']['url']}")
        return found

    async def sync(self, agent: Agent, blobs: Mapping[str, Mapping[str, str]]) -> list[str]:
        """Send the trees and have them put in place; returns the destinations. Idempotent.

        Sent is only what the node lacks; when the connection breaks, the next call goes on where this one was.
        Raises `ValueError` when a tree is not on the server any more, or when the node refuses it.
        """
        trees = [
            {"digest": self._tree_of(b["digest"]), "dest": destination, "kind": b["kind"]}
            for destination, b in blobs.items()
        ]
        before = None
        while trees:
            with _told_plainly():
                missing = await agent.apply(FilesApply(trees=trees))
            if missing == FilesMissing():
                break
            if missing == before:
                raise RuntimeError("the node does not keep what it is sent")
            before = missing
            await self._send(agent, missing)
        return list(blobs)

    def _tree_of(self, digest: str) -> str:
        try:
            return self._blobs.tree_of(digest)
        except ValueError as error:
            raise ValueError(_SEND_AGAIN) from error

    async def _send(self, agent: Agent, missing: FilesMissing) -> None:
        for digest in missing.trees:
            if not self._blobs.has(digest):
                raise ValueError(_SEND_AGAIN)
            with _told_plainly():
                await agent.put_file(digest, self._blobs.path(digest))
        try:
            for pack, size in await asyncio.to_thread(self._blobs.packs, missing.chunks):
                with _told_plainly():
                    await agent.put_pack(pack, size)
        except MissingChunk as error:
            raise ValueError(_SEND_AGAIN) from error


@contextmanager
def _told_plainly() -> Iterator[None]:
    """What a node says against files is the user's to mend."""
    try:
        yield
    except AgentError as error:
        if error.type == "no_space":
            raise RuntimeError(f"the files do not fit on the node: {error}") from error
        if error.type == "not_found":  # what an agent that takes tars says to a tree
            raise with_hint(
                NotSupportedError("the cluster's agent is of an older version, which does not take these files"),
                "`skyinfra launch -c CLUSTER …` brings it up to date",
            ) from error
        if error.type in ("unsafe_path", "bad_request"):
            raise ValueError(f"the node refuses the files: {error}") from error
        raise
