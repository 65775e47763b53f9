"""Hooks: what the user wants run on the node before it is stopped or removed. One after another, failures ignored.

The first event to claim the node's end wins: a second claim under another key is told so and runs nothing. Each hook
runs at most once per claim, also when the agent is killed in between. Output goes to ``~/.sky/hooks/<event>.log``.
"""

import asyncio
import json
import os
import signal
import subprocess
import time
from typing import Any, Dict, List, Optional

from skyinfra.runtime import procs
from skyinfra.runtime.boundary import CAMPAIGN, boundary
from skyinfra.runtime.ledger import Ledger
from skyinfra.runtime.protocol import NodeConfig
from skyinfra.runtime.variables import STATE_MARKER, Node

EVENTS = ("stop", "preemption", "down")
DEFAULT_TIMEOUT_S = 3600.0
_META = "ending"


class Claimed(Exception):
    """Another event claimed the node's end first."""


class Hooks:
    def __init__(self, node: Node, ledger: Ledger, bash: str) -> None:
        self._node, self._ledger, self._bash = node, ledger, bash
        self._running: "Dict[str, asyncio.Task[None]]" = {}

    async def run(self, config: NodeConfig, event: str, key: str, auto: bool, wait_s: float) -> bool:
        """Run what is bound to `event`; True when all has ended, False when `wait_s` was not enough: ask again.

        The same key joins what runs. `auto`: the hook of autostop itself runs too. Raises `Claimed`, `ValueError`.
        """
        if event not in EVENTS:
            raise ValueError("event must be one of {}".format(", ".join(EVENTS)))
        claim = self._claim()
        if claim is None:
            claim = {"event": event, "key": key, "next": 0}
            boundary("agent.hooks.before")
            self._ledger.set_meta(_META, json.dumps(claim))
        elif claim["key"] != key:
            raise Claimed("the node's end was claimed by {} ({})".format(claim["event"], claim["key"]))
        if key not in self._running:
            hooks = bound_to(config, claim["event"], auto)
            self._running[key] = asyncio.ensure_future(self._run_all(hooks, claim))
        done, _ = await asyncio.wait([self._running[key]], timeout=wait_s)
        if not done:
            return False
        self._running.pop(key).result()  # raises what went wrong with ourselves; hooks may fail as they like
        return True

    def release(self) -> None:
        """The node goes on: whatever ends it next claims afresh."""
        self._ledger.set_meta(_META, None)

    def _claim(self) -> Optional[Dict[str, Any]]:
        raw = self._ledger.meta(_META)
        return json.loads(raw) if raw else None

    async def _run_all(self, hooks: List[Dict[str, Any]], claim: Dict[str, Any]) -> None:
        loop = asyncio.get_event_loop()
        for number in range(claim["next"], len(hooks)):
            claim["next"] = number + 1
            self._ledger.set_meta(_META, json.dumps(claim))
            boundary("agent.hooks.recorded")
            await loop.run_in_executor(None, self._run_one, hooks[number], claim["event"])
        boundary("agent.hooks.made")

    def _run_one(self, hook: Dict[str, Any], event: str) -> None:
        """Blocks. Whatever the hook does is in its log, never an error of ours."""
        folder = os.path.join(self._node.home, ".sky", "hooks")
        os.makedirs(folder, mode=0o700, exist_ok=True)
        with open(os.path.join(folder, event + ".log"), "ab") as log:
            log.write("[{}] {}\n".format(time.strftime("%Y-%m-%d %H:%M:%S"), hook["run"].strip()).encode())
            log.flush()
            try:
                said = self._wait(self._start(hook["run"], event, log), float(hook["timeout"]))
            except OSError as exc:
                said = "could not be started: {}".format(exc)
            log.write("[{}] {}\n".format(time.strftime("%Y-%m-%d %H:%M:%S"), said).encode())

    def _start(self, script: str, event: str, log: Any) -> "subprocess.Popen[bytes]":
        inherited = {name: value for name, value in os.environ.items() if name not in CAMPAIGN}
        env = dict(inherited, HOME=self._node.home, SKYPILOT_HOOK_EVENT=event, SKYINFRA_HOOK_EVENT=event)
        env[STATE_MARKER] = self._node.state_folder  # by it a stop finds what the hook leaves behind
        workdir = os.path.join(self._node.home, "sky_workdir")
        return subprocess.Popen(
            [self._bash, "-c", script],
            cwd=workdir if os.path.isdir(workdir) else self._node.home,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )

    def _wait(self, process: "subprocess.Popen[bytes]", timeout_s: float) -> str:
        try:
            return "exit code {}".format(process.wait(timeout_s))
        except subprocess.TimeoutExpired:
            pass

        def family() -> Dict[int, procs.Stat]:
            process.poll()  # a zombie of ours would count as there
            table = procs.snapshot()
            roots = [stat.pid for stat in table.values() if stat.sid == process.pid]
            return {pid: table[pid] for pid in procs.family(roots, table)}

        procs.end_all(family, procs.TERM_GRACE_S)
        process.send_signal(signal.SIGKILL)
        process.wait()
        return "ended after {:g} s, its timeout".format(timeout_s)


def bound_to(config: NodeConfig, event: str, auto: bool) -> List[Dict[str, Any]]:
    """`[{run, timeout}]` for this event, in order; autostop's own hook comes first."""
    found = []
    autostop = config.autostop or {}
    if auto and autostop.get("hook"):
        found.append({"run": autostop["hook"], "timeout": autostop.get("hook_timeout") or DEFAULT_TIMEOUT_S})
    for hook in config.hooks:
        if event in (hook.get("events") or EVENTS):
            found.append({"run": hook["run"], "timeout": hook.get("timeout") or DEFAULT_TIMEOUT_S})
    return found
