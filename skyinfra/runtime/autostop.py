"""The node's half of autostop: its idle clock, the word to the server, and the net for when no server listens.

The server stops the cluster, as a change of the stack. It has a clock of its own; whichever is first acts. Only when
the deadline has passed and nobody has listened for a while does the node end its own jobs and itself. Its disk stays.
"""

import json
import time
from typing import Any, Callable, Dict, Optional, Tuple

from skyinfra.runtime.boundary import boundary
from skyinfra.runtime.idle import JOBS_AND_SSH, IdleClock, age_s, counts_jobs, stamp, terminal_sessions
from skyinfra.runtime.jobs import Jobs
from skyinfra.runtime.protocol import HEARTBEAT_S, NodeConfig

#: At least so long nobody listens before the node acts by itself: a server that is being restarted is not dead.
SILENCE_S = 10.0
NET_REASON = "the idle time is over, and no server listens"
_META = "autostop"


class Autostop:
    """`listened`: whether anybody reads the event stream now. `look` is called about every second."""

    def __init__(
        self, jobs: Jobs, boot: int, listened: Callable[[], bool], now: Callable[[], float] = time.monotonic
    ) -> None:
        self._jobs, self._boot, self._listened, self._now = jobs, boot, listened, now
        self._setting: Optional[str] = None
        self._clock: Optional[IdleClock] = None
        self._told: Optional[Tuple[Any, ...]] = None
        self._heard_at = now()
        self._counted_at = 0.0
        self.sessions = 0

    def configure(self, config: NodeConfig) -> None:
        """A new setting restarts the clock; the same one, pushed again or read after a restart, does not."""
        policy = config.autostop or {}
        setting = "{}:{}".format(policy.get("setting", 0), self._boot)
        if setting == self._setting:
            return
        known = json.loads(self._jobs.ledger.meta(_META) or "{}")
        if known.get("setting") != setting:
            at = time.time()
            known = {"setting": setting, "at": at, "stamp": stamp(at)}
            self._jobs.ledger.set_meta(_META, json.dumps(known))
            if self._jobs.drain_reason == NET_REASON:  # of the setting before
                self._jobs.drain(None)
        mark, idle_s = self._mark(policy), age_s(known["at"], known.get("stamp"))
        if mark is not None:
            idle_s = min(idle_s, time.monotonic() - self._jobs.idle_from)
        self._setting = setting
        self._clock = IdleClock(mark, idle_s, self._now)

    def look(self) -> bool:
        """True: the node must end itself now."""
        if self._listened():
            self._heard_at = self._now()
        config = self._jobs.config
        policy = config.autostop or {}
        minutes = policy.get("idle_minutes", -1)
        if minutes < 0 or self._clock is None:
            return False
        wait_for = policy.get("wait_for") or JOBS_AND_SSH
        self._count_sessions(config, wait_for)
        busy = self.sessions > 0 or (counts_jobs(wait_for) and not self._jobs.idle)
        idle_s = self._clock.look(busy, self._mark(policy))
        limit_s = max(1, minutes) * config.minute_s
        if idle_s < limit_s:
            return False
        self._tell(policy, idle_s)
        silent_s = self._now() - self._heard_at
        return silent_s >= max(SILENCE_S, config.minute_s) and idle_s >= limit_s

    def event(self) -> str:
        """What the deadline means here: ``stop`` or ``down``."""
        return "down" if (self._jobs.config.autostop or {}).get("down") else "stop"

    def _mark(self, policy: Dict[str, Any]) -> Optional[float]:
        """Changes with each sign of life; a limit that waits for nothing (None) runs from its setting on."""
        return self._jobs.idle_since if counts_jobs(policy.get("wait_for") or JOBS_AND_SSH) else None

    def _tell(self, policy: Dict[str, Any], idle_s: float) -> None:
        """Once per setting and stretch of idleness. The server may be away: the event waits for it."""
        about = (self._setting, self._mark(policy))
        if self._told == about:
            return
        boundary("agent.autostop.before")
        body = {"event": self.event(), "setting": policy.get("setting", 0), "idle_s": round(idle_s, 3)}
        self._jobs.ledger.add_event("autostop", body)
        boundary("agent.autostop.recorded")
        self._told = about

    def _count_sessions(self, config: NodeConfig, wait_for: str) -> None:
        """On the local cloud the host's sessions are not the node's."""
        if wait_for != JOBS_AND_SSH or config.cluster.get("cloud") == "local":
            self.sessions = 0
        elif self._now() - self._counted_at >= HEARTBEAT_S:
            self._counted_at, self.sessions = self._now(), terminal_sessions()
