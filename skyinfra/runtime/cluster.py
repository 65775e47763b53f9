"""The agent as one of several: as the head it listens for its workers, as a worker it dials the head.

Owns who is connected and who is LOST. What a job on several nodes is, `Gangs` and `Ranks` know; this brings their
frames to where they belong. On a cluster of one node it does nothing.
"""

import asyncio
import time
from typing import Any, Callable, Dict, List, Optional

from skyinfra.runtime import health
from skyinfra.runtime.gangs import Gangs
from skyinfra.runtime.jobs import Jobs
from skyinfra.runtime.link import Dialer, Link, Listener, context, guarded
from skyinfra.runtime.protocol import NODE_LOST_S, RANK_LOST_S, Frame, NodeConfig, RankState, load
from skyinfra.runtime.ranks import Ranks, handle, state_frame
from skyinfra.runtime.say import say

LOST = "LOST"
_PORT = "link_port"
#: A look that comes so late was held up itself: the workers are not to blame.
_LATE_S = 2.0


class Cluster:
    """`hello` says who this worker is; `poweroff` ends this node because its head does."""

    def __init__(self, jobs: Jobs, hello: Callable[[], Dict[str, Any]], poweroff: Callable[[], object]) -> None:
        self._jobs, self._hello, self._poweroff = jobs, hello, poweroff
        self._config = NodeConfig()
        self._tls: Optional[Dict[str, Any]] = None
        self._heard: Dict[int, float] = {}  # worker -> when last
        self._told: Dict[int, str] = {}  # worker -> the state that the server was told
        self._devices: Dict[int, List[str]] = {}  # worker -> what it says it has
        self._bad: Dict[int, List[str]] = {}  # worker -> those that are not fit
        self._looked_at = time.monotonic()
        self._verdict = health.Verdict(health.READY, "", ())
        self._follows: "Dict[str, asyncio.Task[None]]" = {}
        self._changing = asyncio.Lock()
        self._listener = Listener(self._on_worker, self._on_worker_gone, self._on_word)
        self._dialer = Dialer(lambda: Frame("hello", body=self._hello()), self._on_head, self._on_order)
        self.ranks = Ranks(jobs, self._tell)
        self.gangs = jobs.gangs = Gangs(jobs, self._send)

    @property
    def port(self) -> int:
        """Where workers are listened for; 0 = nowhere."""
        return self._listener.port

    def _is_head(self) -> bool:
        return self._config.slot == 0

    # --- what it is -------------------------------------------------------------------------------------------------

    def place(self, config: NodeConfig) -> None:
        """This node's place, and what the others have. `connect` comes next."""
        self._config = config
        others = {entry["slot"] for entry in config.node_table if entry["slot"] != 0}
        if not self._is_head():
            return
        self._jobs.queue.keep_only(others)
        for slot in set(self._heard) - others:
            del self._heard[slot]
        for slot in others:
            self._offer(slot)
            self._jobs.queue.away(slot, self._listener.link(slot) is None)
            self._heard.setdefault(slot, time.monotonic())
        self._jobs.kick()

    async def connect(self) -> None:
        """Listen or dial as the place says. Raises `ValueError` for an address or a certificate that is none."""
        async with self._changing:
            config = self._config
            if len(config.node_table) < 2 or not config.tls:
                return
            try:
                await (self._listen(config) if self._is_head() else self._dial(config))
            except (OSError, ValueError) as exc:
                raise ValueError("cannot be one of several nodes: {}".format(exc)) from exc

    async def _listen(self, config: NodeConfig) -> None:
        if self._listener.port and self._tls == config.tls:
            return
        wished = int(self._jobs.ledger.meta(_PORT) or config.node_table[0].get("port") or 0)
        tls = context(self._jobs.node.state_folder, config.tls or {}, server=True)
        await self._listener.listen(str(config.node_table[0]["ip"]), wished, tls)
        self._tls = config.tls
        self._jobs.ledger.set_meta(_PORT, str(self._listener.port))  # a successor listens where workers dial

    async def _dial(self, config: NodeConfig) -> None:
        head = config.node_table[0]
        if not head.get("port"):
            return  # the head has not said yet where it listens
        state, tls = self._jobs.node.state_folder, config.tls or {}
        await self._dialer.dial(
            str(head["ip"]), int(head["port"]), lambda: context(state, tls, server=False), str(tls.get("cert"))
        )

    async def close(self) -> None:
        self._drop_follows()
        await self._dialer.close()
        await self._listener.close()

    # --- the head's side --------------------------------------------------------------------------------------------

    def look(self) -> None:
        """About every second: who has not been heard, and what that means."""
        now = time.monotonic()
        late = now - self._looked_at - 1.0
        self._looked_at = now
        self.ranks.look()
        for slot in list(self._heard):
            link = self._listener.link(slot)
            if late > _LATE_S:
                self._heard[slot] += late
            if link is not None:
                self._heard[slot] = max(self._heard[slot], link.heard_at)
            silent_s = now - self._heard[slot]
            if silent_s > NODE_LOST_S:
                self._jobs.queue.away(slot, True)
                self._report(slot, LOST, "not heard for {:g} s".format(NODE_LOST_S))
            if silent_s > RANK_LOST_S:
                self.gangs.lose(slot, "not heard for {:g} s".format(RANK_LOST_S))

    def _report(self, slot: int, state: str, reason: str) -> None:
        """One event per change."""
        if self._told.get(slot) != state:
            self._told[slot] = state
            say("node {} is {}{}".format(slot, state, ": " + reason if reason else ""))
            self._jobs.ledger.add_event("node_health", {"slot": slot, "state": state, "reason": reason})

    def _send(self, slot: int, frame: Frame) -> None:
        if slot == 0:
            handle(self.ranks, frame)
            return
        link = self._listener.link(slot)
        if link is not None:
            link.send(frame)

    def _on_worker(self, slot: int) -> None:
        self._heard[slot] = time.monotonic()
        self._jobs.queue.away(slot, False)
        self.gangs.on_up(slot)
        self._report(slot, health.READY, "")
        self._jobs.kick()

    def _on_worker_gone(self, slot: int) -> None:
        self._jobs.queue.away(slot, True)

    def _on_word(self, slot: int, frame: Frame, data: bytes) -> None:
        if frame.kind == "state":
            self.gangs.on_state(slot, load(RankState, frame.body))
        elif frame.kind == "log":
            self.gangs.on_log(slot, frame.key, frame.offset, data)
        elif frame.kind == "hello":
            self._devices[slot] = [str(gpu) for gpu in frame.body.get("gpus") or ()]
            self._offer(slot)
        elif frame.kind == "health":
            self._bad[slot] = [str(gpu) for gpu in frame.body.get("bad") or ()]
            self._offer(slot)
            self._report(slot, str(frame.body.get("state")), str(frame.body.get("reason") or ""))

    def _offer(self, slot: int) -> None:
        """Let jobs have a worker's CPUs and every device of it that is fit."""
        entry = next((one for one in self._config.node_table if one["slot"] == slot), None)
        if entry is not None:
            devices = self._devices.get(slot) or [str(gpu) for gpu in entry.get("gpus") or ()]
            fit = [gpu for gpu in devices if gpu not in self._bad.get(slot, ())]
            self._jobs.queue.resize(float(entry.get("cpus") or 0), fit, slot)
            self._jobs.kick()

    def end_workers(self) -> None:
        """The head ends itself, and its workers with it."""
        for slot in self._heard:
            self._send(slot, Frame("poweroff"))

    # --- the worker's side ------------------------------------------------------------------------------------------

    def _tell(self, state: RankState) -> None:
        if self._is_head():
            self.gangs.on_state(0, state)
        elif self._dialer.link is not None:
            self._dialer.link.send(state_frame(state))

    def note_health(self, verdict: health.Verdict) -> None:
        """Of this node's devices."""
        self._verdict = verdict
        if self._dialer.link is not None:
            self._dialer.link.send(self._health_frame())

    def _health_frame(self) -> Frame:
        seen = self._verdict
        return Frame("health", body={"state": seen.state, "reason": seen.reason, "bad": list(seen.bad)})

    def _on_head(self, link: Link) -> None:
        self._drop_follows()
        if self._verdict.bad:
            link.send(self._health_frame())

    def _on_order(self, _: int, frame: Frame, data: bytes) -> None:
        if frame.kind == "welcome":
            keys: List[str] = frame.body.get("keys") or []
            self.ranks.end_all_but(keys)
        elif frame.kind == "follow":
            self._follow(frame.key, frame.offset)
        elif frame.kind == "poweroff":
            self._poweroff()
        else:
            handle(self.ranks, frame)

    def _follow(self, key: str, offset: int) -> None:
        link = self._dialer.link
        before = self._follows.pop(key, None)
        if before is not None:
            before.cancel()
        if link is not None:
            sending = guarded(self.ranks.follow(key, offset, link.send_all))
            self._follows[key] = asyncio.get_event_loop().create_task(sending)

    def _drop_follows(self) -> None:
        for task in self._follows.values():
            task.cancel()
        self._follows.clear()
