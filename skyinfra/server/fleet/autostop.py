"""What a cluster's declaration says about its end: autostop and hooks. Pure but for the handler that sets them.

``autostop``: set → tell. The policy is part of the `ClusterSpec`; the next operation carries it into the stack. The
node gets it at once, or when it is there again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from skyinfra.model.autostop import AutostopConfig
from skyinfra.model.exceptions import NotSupportedError, with_hint
from skyinfra.model.spec import ClusterSpec
from skyinfra.model.states import AutostopWaitFor
from skyinfra.server.fleet.clusters import Clusters
from skyinfra.server.fleet.demand import Demand
from skyinfra.server.fleet.ports import AgentError, Unreachable
from skyinfra.server.fleet.reach import Reach
from skyinfra.server.requests.steps import Handler, Step, StepContext, in_order
from skyinfra.stacks.clouds.registry import can

__all__ = [
    "Autostop",
    "changes_for",
    "check_can_stop",
    "declared",
    "policy_of_launch",
    "stops_when_idle",
    "unstoppable",
]

TELL_S = 5.0


def declared(cluster: Any) -> dict[str, Any]:
    """The autostop of a cluster, from its spec; of a row that an older version wrote, made from its columns."""
    if cluster.spec.get("autostop") is not None:
        return cluster.spec["autostop"]
    wait_for = AutostopWaitFor.JOBS_AND_SSH.value
    return {"idle_minutes": cluster.autostop, "down": cluster.to_down, "wait_for": wait_for, "setting": 0}


def policy_of_launch(body: Mapping[str, Any], demand: Demand) -> AutostopConfig | None:
    """What a launch says: its flags over the task's `autostop`. None = nothing. Raises `ValueError`."""
    wait_for = _wait_for(body.get("wait_for"))
    minutes, down = body.get("idle_minutes_to_autostop"), bool(body.get("down"))
    if demand.autostop is None and minutes is None:
        # `--down` alone: as soon as its jobs have ended
        return AutostopConfig(idle_minutes=1, down=True, wait_for=wait_for) if down else None
    said = demand.autostop or AutostopConfig()
    if minutes is None and not down and wait_for is None:
        return said
    return said.overridden(
        down, minutes if minutes is not None else said.idle_minutes if said.enabled else -1, wait_for
    )


def unstoppable(spec: Mapping[str, Any]) -> str | None:
    """Why a cluster of this spec cannot be stopped, after its name; None when it can."""
    if any(slot["spot"] for slot in spec["slots"]):
        return "is a spot cluster"
    cloud = spec["cloud"]
    return None if can(cloud, "stop") else f"is on {cloud}, whose machines are not ours to switch off"


def stops_when_idle(policy: AutostopConfig | None) -> bool:
    """Stops, and does not go down."""
    return policy is not None and policy.enabled and not policy.down


def check_can_stop(cluster_name: str, policy: AutostopConfig | None, why: str | None) -> None:
    """Raises `NotSupportedError` for an idle stop of what can only be removed: `why` is as `unstoppable` says it."""
    if stops_when_idle(policy) and why is not None:
        raise with_hint(
            NotSupportedError(f"cluster '{cluster_name}' {why}: it cannot be stopped, only removed"),
            "add `--down` (in YAML: `autostop: {idle_minutes: N, down: true}`)",
        )


def changes_for(
    spec: ClusterSpec, policy: AutostopConfig | None, hooks: tuple[dict[str, Any], ...] | None
) -> tuple[dict[str, Any], str]:
    """The columns that change, and the line for the cluster's history. None = as it is. Each setting gets a number."""
    values: dict[str, Any] = {}
    text = "hooks changed"
    if hooks is not None:
        spec = dataclasses.replace(spec, hooks=hooks)
    if policy is not None:
        minutes = max(1, policy.idle_minutes) if policy.enabled else -1
        down = policy.enabled and policy.down
        said = {
            "idle_minutes": minutes,
            "down": down,
            "wait_for": (policy.wait_for or AutostopWaitFor.JOBS_AND_SSH).value,
            "hook": policy.hook,
            "hook_timeout": policy.hook_timeout,
            "setting": ((spec.autostop or {}).get("setting") or 0) + 1,
        }
        spec = dataclasses.replace(spec, autostop=said)
        values = {"autostop": minutes, "to_down": down}
        text = (
            f"{'autodown' if down else 'autostop'} after {minutes} idle min" if minutes > 0 else "autostop called off"
        )
    return {**values, "spec": spec.to_json()}, text


def notice_of(policy: AutostopConfig) -> str | None:
    """What to say about a time that is not taken literally."""
    return "idle minutes of 0 mean 1" if policy.enabled and policy.idle_minutes == 0 else None


def _wait_for(value: str | None) -> AutostopWaitFor | None:
    if value is None:
        return None
    try:
        return AutostopWaitFor(value)
    except ValueError:
        known = ", ".join(member.value for member in AutostopWaitFor)
        raise ValueError(f"wait_for must be one of {known}, not {value!r}") from None


class Autostop:
    def __init__(self, clusters: Clusters, reach: Reach) -> None:
        self._clusters = clusters
        self._reach = reach

    def handler(self) -> Handler:
        return Handler("autostop", in_order(Step("set", self._set), Step("tell", self._tell)), lane=True)

    async def apply(
        self, ctx: StepContext, cluster: Any, policy: AutostopConfig | None, hooks: tuple[dict[str, Any], ...] | None
    ) -> None:
        """Write it into the cluster's declaration. Raises `NotSupportedError`."""
        if policy is None and hooks is None:
            return
        spec = ClusterSpec.from_json(cluster.spec)
        check_can_stop(spec.name, policy, unstoppable(spec.to_json()))
        if policy is not None and (notice := notice_of(policy)):
            ctx.say(notice)
        values, text = changes_for(spec, policy, hooks)
        await self._clusters.change(cluster.id, ("autostop", text), **values)

    async def _set(self, ctx: StepContext, prior: Mapping[str, Any]) -> Any:
        cluster = await self._clusters.get_up(ctx.workspace, ctx.cluster_name)
        minutes = ctx.body["idle_minutes"]
        policy = AutostopConfig(
            enabled=minutes >= 0,
            idle_minutes=max(0, minutes),
            down=bool(ctx.body.get("down")),
            wait_for=_wait_for(ctx.body.get("wait_for")),
            hook=ctx.body.get("hook"),
            hook_timeout=ctx.body.get("hook_timeout"),
        )
        await self.apply(ctx, cluster, policy, None)
        return {"cluster_id": cluster.id}

    async def _tell(self, ctx: StepContext, prior: Mapping[str, Any]) -> Any:
        await self.tell(ctx, prior["set"]["cluster_id"])
        return None

    async def tell(self, ctx: StepContext, cluster_id: str) -> None:
        """The node learns it now; when it cannot, the watcher tells it as soon as it is there again."""
        cluster = await self._clusters.by_id(cluster_id)
        if cluster is None:
            return
        try:
            await self._reach.configure(cluster, TELL_S)
        except (Unreachable, AgentError, TimeoutError) as error:
            ctx.say(f"The agent of {cluster.name} learns it later: {error or 'it did not answer in time'}")
