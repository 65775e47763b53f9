"""Reaching agents: who to talk to for a cluster, and patience while one is being brought back.

Jobs, logs and events are the head's; files and configuration go to every node.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
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

__all__ = ["HEAD", "Reach", "lost_slots", "node_of"]

T = TypeVar("T")

PATIENCE_S = 30.0
ASK_AGAIN_S = 0.5
WAITING = "unreachable_since"
TELL_S = 5.0
WORKDIR = "~/sky_workdir"
_SEND_AGAIN = "the task's files are not on the server any more: launch it again"
HEAD = 0


def node_of(cluster: Any, slot: int) -> dict[str, Any] | None:
    """What the last operation left of that node."""
    return next((node for node in cluster.nodes or () if node["slot"] == slot), None)


def lost_slots(cluster: Any) -> set[int]:
    """Nodes that the head does not hear."""
    return {int(slot) for slot, one in (cluster.node_health or {}).items() if one.get("state") == "LOST"}


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
        self._known: dict[tuple[str, int], tuple[Any, Agent]] = {}

    def head(self, cluster: Any) -> AbstractAsyncContextManager[Agent]:
        """The head's agent, on the connections kept for it. Raises `Unreachable` when the cluster has no node."""
        return self.node(cluster, HEAD)

    @asynccontextmanager
    async def node(self, cluster: Any, slot: int) -> AsyncIterator[Agent]:
        """One node's agent. Raises as `head`."""
        node = node_of(cluster, slot)
        channel = node.get("channel") if node is not None else None
        kept = self._known.get((cluster.id, slot))
        if kept is None or kept[0] != channel:
            agent = await self._open(cluster, slot)
            if kept is not None:
                await kept[1].aclose()
            self._known[cluster.id, slot] = kept = (channel, agent)
        yield kept[1]

    @asynccontextmanager
    async def own_connection(self, cluster: Any) -> AsyncIterator[Agent]:
        """The head's agent on a connection that nobody else waits for. Raises as `head`."""
        agent = await self._open(cluster, HEAD)
        try:
            yield agent
        finally:
            await agent.aclose()

    async def _open(self, cluster: Any, slot: int) -> Agent:
        node = node_of(cluster, slot)
        if node is None or node.get("channel") is None:
            raise Unreachable(f"cluster {cluster.name} has no node {slot} that runs")
        token = await self._clusters.token(cluster.id)
        return await self._connect(node, token.reveal())

    async def forget(self, cluster_id: str) -> None:
        """Close what is kept for a cluster that is gone."""
        for key in [key for key in self._known if key[0] == cluster_id]:
            await self._known.pop(key)[1].aclose()

    async def close(self) -> None:
        for cluster_id in {key[0] for key in self._known}:
            await self.forget(cluster_id)

    async def patiently(self, ctx: StepContext, cluster: Any, call: Callable[[Agent], Awaitable[T]]) -> T:
        """`call` on the head's agent; while nobody answers the step parks, at most `PATIENCE_S` in all.

        Raises `ClusterNotUpError` when nobody answered, or when the cluster is going down.
        """

        async def ask() -> T:
            async with self.head(cluster) as agent:
                return await call(agent)

        return await self.patiently_all(ctx, cluster, ask)

    async def patiently_all(self, ctx: StepContext, cluster: Any, call: Callable[[], Awaitable[T]]) -> T:
        """As `patiently`, for a `call` that reaches the nodes itself."""
        try:
            result = await call()
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

    async def configure(self, cluster: Any, patience_s: float = TELL_S) -> dict[int, str]:
        """Every node learns its place, the head first: it says where it listens for the others.

        The workers that could not be told, and why. Raises `Unreachable`, `AgentError`, `TimeoutError` of the head.
        """
        slots = [slot["slot"] for slot in cluster.spec["slots"]]
        certificates = await self._clusters.certificates(cluster.id) if len(slots) > 1 else {}
        async with asyncio.timeout(patience_s), self.head(cluster) as agent:
            await agent.put_config(self._config_of(cluster, HEAD, 0, certificates))
            port = (await agent.health()).link_port if len(slots) > 1 else 0

        async def tell(slot: int) -> str | None:
            try:
                async with asyncio.timeout(patience_s), self.node(cluster, slot) as agent:
                    await agent.put_config(self._config_of(cluster, slot, port, certificates))
            except (Unreachable, AgentError, TimeoutError) as error:
                return str(error) or "it did not answer in time"
            return None

        workers = [slot for slot in slots if slot != HEAD]
        said = await asyncio.gather(*(tell(slot) for slot in workers))
        return {slot: why for slot, why in zip(workers, said, strict=True) if why is not None}

    async def configure_all(self, cluster: Any) -> None:
        """As `configure`; a worker that could not be told is `Unreachable`, too."""
        for slot, why in (await self.configure(cluster)).items():
            raise Unreachable(f"node {slot}: {why}")

    def _config_of(self, cluster: Any, slot: int, port: int, certificates: Mapping[str, Any]) -> NodeConfig:
        """One node's place: the node table, the cluster's name, its share of the machine; of the head, when it ends."""
        spec = cluster.spec
        facts = {"cluster_name": cluster.name, "cloud": spec["cloud"], "region": spec["region"], "zone": None}
        slots = {one["slot"]: one for one in spec["slots"]}
        table = [
            {
                "slot": node["slot"],
                "ip": node["internal_ip"],
                "port": port if node["slot"] == HEAD else 0,
                "cpus": slots[node["slot"]]["cpus"],
                # stand-ins: which devices it has, a worker says when it dials
                "gpus": [str(number) for number in range((slots[node["slot"]]["gpus"] or ("", 0))[1])],
            }
            for node in cluster.nodes
            if node["slot"] in slots
        ]
        of_head: dict[str, Any] = {"autostop": spec.get("autostop"), "hooks": list(spec.get("hooks") or ())}
        return NodeConfig(
            node_table=table,
            slot=slot,
            cluster=facts,
            cpus=slots[slot]["cpus"],
            gpus=list((node_of(cluster, slot) or {}).get("gpus") or []),
            minute_s=self._minute_s,
            tls=certificates.get(str(slot)),
            **(of_head if slot == HEAD else {}),
        )

    async def check_out(self, ctx: StepContext, cluster: Any) -> dict[str, str]:
        """Of a task whose workdir is a git repository: fetch it; what the job finds of it in its environment.

        Raises `GitError`, and as `patiently`.
        """
        task = ctx.body["task"]
        if not git.is_git(task):
            return {}

        async def fetch() -> dict[str, str]:
            """The head says what the ref is; the others get that commit, also when a branch moves meanwhile."""
            async with self.node(cluster, HEAD) as agent:
                first = await git.check_out(agent, task)
            if len(cluster.spec["slots"]) > 1:
                await self._everywhere(cluster, lambda agent: git.check_out(agent, task, first["GIT_COMMIT_HASH"]))
            return first

        found = await self.patiently_all(ctx, cluster, fetch)
        name = found.get("GIT_BRANCH") or found.get("GIT_TAG") or ""
        ctx.say(f"Workdir is {found['GIT_COMMIT_HASH'][:10]}{f' ({name})' if name else ''} of {task['workdir']['url']}")
        return found

    async def sync_all(self, cluster: Any, blobs: Mapping[str, Mapping[str, str]]) -> list[str]:
        """`sync` on every node at once, but for those that are LOST. Raises as `sync`, and `Unreachable`."""
        await self._everywhere(cluster, lambda agent: self.sync(agent, blobs))
        return list(blobs)

    async def _everywhere(self, cluster: Any, call: Callable[[Agent], Awaitable[T]]) -> list[T]:
        """`call` on every node at once, but LOST ones. Raises the first node's error when all are done."""
        lost = lost_slots(cluster)

        async def on(slot: int) -> T:
            async with self.node(cluster, slot) as agent:
                return await call(agent)

        slots = [slot["slot"] for slot in cluster.spec["slots"] if slot["slot"] not in lost]
        done = await asyncio.gather(*(on(slot) for slot in slots), return_exceptions=True)
        found: list[T] = []
        for one in done:  # only now: a node that is being written to must not outlive the step
            if isinstance(one, BaseException):
                raise one
            found.append(one)
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
