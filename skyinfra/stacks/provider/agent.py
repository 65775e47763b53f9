"""``skyinfra:index:Agent``: the node agent of one machine, as a resource.

Inputs are what it should be (version, boot, generation), never an address: where the machine is, its cloud says at the
time of the call. An update restarts the agent; jobs live on. Its cloud's part is an `AgentHost`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from skyinfra.model.home import Home
from skyinfra.runtime.boundary import boundary
from skyinfra.stacks.clouds.failures import CloudError
from skyinfra.stacks.clouds.local import agent_process
from skyinfra.stacks.clouds.local import machine as machines
from skyinfra.stacks.provider.calls import UNKNOWN, Call, DiffResult, Properties, changed

__all__ = ["Agent", "AgentHost", "LocalAgentHost"]

_INPUTS = ("machine_id", "slot", "version", "boot", "generation")


class AgentHost(Protocol):
    """How a cloud runs agents on its machines."""

    def ensure(self, wanted: agent_process.Wanted, cancelled: Callable[[], bool]) -> dict[str, str]:
        """The agent as wanted is ready; returns its channel. Raises `CloudError`."""
        ...

    def machine_runs(self, machine_id: str) -> bool: ...

    def remove(self, machine_id: str) -> None:
        """Ends the agent and its jobs. Raises `CloudError`."""
        ...


class LocalAgentHost:
    """`token` is the cluster's agent token; None = keep the one on the machine's disk, else `new_token` gives one."""

    def __init__(self, home: Home, token: str | None, new_token: Callable[[], str | None] = lambda: None) -> None:
        self._home = home
        self._token = token
        self._new_token = new_token

    def ensure(self, wanted: agent_process.Wanted, cancelled: Callable[[], bool]) -> dict[str, str]:
        agent_process.ensure_running(self._home, wanted, self._token, cancelled, self._new_token)
        return agent_process.channel_of(self._home, wanted.machine_id)

    def machine_runs(self, machine_id: str) -> bool:
        machine = machines.load(self._home, machine_id)
        return machine is not None and machine.state == "ready" and machine.power == "running"

    def remove(self, machine_id: str) -> None:
        machines.stop(self._home, machine_id)


class Agent:
    token = "skyinfra:index:Agent"

    def __init__(self, hosts: dict[str, AgentHost]) -> None:
        self._hosts = hosts

    def check(self, inputs: Properties) -> dict[str, str]:
        # Not machine_id: when its machine failed the engine sends none, and one error for one cause is enough.
        missing = {name: "is needed" for name in _INPUTS[1:] if inputs.get(name) in (None, "")}
        cloud = inputs.get("cloud", "local")
        if cloud != UNKNOWN and cloud not in self._hosts:
            missing["cloud"] = f"{cloud} is not one of {', '.join(sorted(self._hosts))}"
        return missing

    def diff(self, olds: Properties, news: Properties) -> DiffResult:
        replaces = changed(olds, news, ("machine_id", "cloud"))
        return DiffResult(replaces + changed(olds, news, ("slot", "version", "boot", "generation")), replaces)

    def preview(self, inputs: Properties, olds: Properties | None) -> Properties:
        known = {"channel": olds["channel"]} if olds and "channel" in olds else {"channel": UNKNOWN}
        return {**known, **inputs, "ready_at": UNKNOWN}

    def create(self, call: Call, inputs: Properties) -> tuple[str, Properties]:
        if not inputs.get("machine_id"):
            raise CloudError("transient", "there is no machine to run the agent on")
        call.made(inputs["machine_id"], dict(inputs))
        return inputs["machine_id"], self._ensure(call, inputs)

    def update(self, call: Call, identifier: str, inputs: Properties, olds: Properties) -> Properties:
        return self._ensure(call, inputs)

    def _ensure(self, call: Call, inputs: Properties) -> Properties:
        wanted = agent_process.Wanted(
            inputs["machine_id"], inputs["version"], int(inputs["boot"]), int(inputs["generation"])
        )
        channel = self._host(inputs).ensure(wanted, call.cancelled)
        return {**inputs, "channel": channel, "ready_at": time.time()}

    def read(self, identifier: str, outputs: Properties) -> Properties | None:
        # An agent that does not answer is not gone: the server raises its generation, a refresh must not drop it.
        return outputs

    def delete(self, call: Call, identifier: str, outputs: Properties) -> None:
        host = self._host(outputs)
        boundary("provider.agent.delete.before")
        if host.machine_runs(identifier):
            host.remove(identifier)
        boundary("provider.agent.delete.made")

    def _host(self, inputs: Properties) -> AgentHost:
        host = self._hosts.get(inputs.get("cloud") or "local")
        if host is None:
            raise CloudError("ours", f"no agents on cloud {inputs.get('cloud')}")
        return host
