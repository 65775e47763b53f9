"""Agents on machines that are reached over SSH: an `AgentHost` for every cloud that has such machines.

A cloud says where a machine id is *now* (`Locate`); everything after that is the same: wait for SSH and say why it is
not there yet, send the agent's file once per version, start it so that it comes back after a boot, and believe only its
own answer. The machine downloads nothing.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from skyinfra.model.home import Home
from skyinfra.runtime import package
from skyinfra.runtime.boundary import boundary
from skyinfra.stacks.clouds.failures import CloudError
from skyinfra.stacks.clouds.local.agent_process import Wanted
from skyinfra.stacks.files import make_private_dir

__all__ = ["Machine", "RemoteAgentHost"]

READY_S = 30.0
Cancelled = Callable[[], bool]


class Ask(Protocol):
    """A question to the machine (`remote.program.ask`, on a connection that is made when it is needed)."""

    def __call__(self, request: dict[str, Any], cancelled: Cancelled) -> dict[str, Any]:
        """Raises `CloudError`."""
        ...


@dataclass(frozen=True)
class Machine:
    """Where a machine id keeps its things, and how it is spoken to."""

    name: str
    """For messages."""
    ask: Ask
    root: str
    """Its folder, ``~`` allowed."""
    socket: str
    channel: dict[str, str]
    """What the stack keeps of the way there: no address, no secret."""
    home: str | None = None
    """The jobs' HOME; None = one of its own below the root."""
    leased: bool = False
    """Whether the machine must be leased to this id."""
    absolute_paths: bool = False
    """Whether file trees may be put outside the jobs' HOME: the machine is ours alone."""


class Locate(Protocol):
    def __call__(self, machine_id: str) -> Machine | None:
        """None: proven gone, or off. Raises `CloudError` for what cannot be told."""
        ...


class RemoteAgentHost:
    """`token` is the cluster's agent token; None = keep the one on the machine, else `new_token` gives one."""

    def __init__(
        self, home: Home, locate: Locate, token: str | None, new_token: Callable[[], str | None] = lambda: None
    ) -> None:
        self._home = home
        self._locate = locate
        self._token = token
        self._new_token = new_token

    def ensure(self, wanted: Wanted, cancelled: Cancelled) -> dict[str, str]:
        """Raises `CloudError`: transient when the machine is gone, silent, or its agent does not get ready."""
        machine = self._locate(wanted.machine_id)
        if machine is None:
            raise CloudError("transient", f"machine {wanted.machine_id} is gone")
        request = self._request(machine, wanted)
        boundary("provider.remote_agent.create.before")
        answer = machine.ask(request, cancelled)
        while (need := answer.get("need")) is not None:
            request[need] = self._needed(need, wanted)
            answer = machine.ask(request, cancelled)
        boundary("provider.remote_agent.create.made")
        if "failed" in answer:
            raise CloudError("transient", f"the agent on {machine.name}: {answer['failed']}", machine.name)
        boundary("provider.remote_agent.create.recorded")
        return machine.channel

    def _request(self, machine: Machine, wanted: Wanted) -> dict[str, Any]:
        return {
            "op": "ensure_agent",
            "machine_id": wanted.machine_id,
            "version": wanted.version,
            "boot": wanted.boot,
            "generation": wanted.generation,
            "root": machine.root,
            "socket": machine.socket,
            "home": machine.home,
            "leased": machine.leased,
            "absolute_paths": machine.absolute_paths,
            "token": self._token,
            "program": None,
            "wait_s": READY_S,
            "keep_boot": True,
        }

    def _needed(self, what: str, wanted: Wanted) -> str:
        """What the machine does not have yet. Raises `CloudError` (ours) when we do not have it either."""
        if what == "program":
            return base64.b64encode(self._program(wanted.version).read_bytes()).decode()
        token = self._new_token()
        if token is None:
            raise CloudError("ours", f"no token for the agent of {wanted.machine_id}")
        return token

    def _program(self, version: str) -> Path:
        cache = make_private_dir(self._home.root / "agent-cache")
        source = package.build(cache) if version == package.agent_version() else cache / f"agent-{version}.pyz"
        if not source.exists():
            words = f"agent {version} is not in {cache}; launch or start the cluster again to upgrade it"
            raise CloudError("ours", words)
        return source

    def machine_runs(self, machine_id: str) -> bool:
        """Raises `CloudError` for a machine that exists and cannot be reached."""
        return self._locate(machine_id) is not None

    def remove(self, machine_id: str) -> None:
        """Ends the agent and its jobs. Raises `CloudError` that names what would not end."""
        machine = self._locate(machine_id)
        if machine is None:
            return
        left = machine.ask({"op": "stop", "root": machine.root}, lambda: False)["left"]
        if left:
            raise CloudError("transient", f"{machine.name}: {', '.join(left)} would not end", machine.name)
