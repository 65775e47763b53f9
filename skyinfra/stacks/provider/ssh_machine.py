"""``skyinfra:ssh:Machine``: the lease of a machine that is simply there. The acts are clouds/ssh's."""

from __future__ import annotations

from skyinfra.stacks.clouds.failures import CloudError
from skyinfra.stacks.clouds.ssh.choice import Demand, misfit
from skyinfra.stacks.clouds.ssh.hosts import Tell
from skyinfra.stacks.clouds.ssh.intents import Place
from skyinfra.stacks.clouds.ssh.machine import Declared, Machines
from skyinfra.stacks.provider.calls import UNKNOWN, Call, DiffResult, Properties, changed

__all__ = ["SshMachine"]

_REPLACES = ("cluster", "slot", "incarnation", "pool", "gpus", "image")
_IN_PLACE = ("cpus", "memory_gb", "server", "workspace", "name", "power")
READ_S = 1.5


def _declared(inputs: Properties) -> Declared:
    gpus = inputs.get("gpus")
    return Declared(
        cluster=inputs["cluster"],
        slot=int(inputs["slot"]),
        incarnation=int(inputs.get("incarnation") or 0),
        pool=inputs["pool"],
        server=inputs.get("server") or "",
        workspace=inputs.get("workspace") or "",
        name=inputs.get("name") or "",
        demand=Demand(
            cpus=float(inputs.get("cpus") or 0),
            memory_gb=float(inputs.get("memory_gb") or 0),
            gpus=(gpus[0], int(gpus[1])) if gpus else None,
        ),
    )


class SshMachine:
    token = "skyinfra:ssh:Machine"

    def __init__(self, machines: Machines, tell: Tell) -> None:
        self._machines = machines
        self._tell = tell

    def check(self, inputs: Properties) -> dict[str, str]:
        missing = {name: "is needed" for name in ("cluster", "slot", "pool") if inputs.get(name) is None}
        if inputs.get("power") == "stopped":
            missing["power"] = "machines of the ssh cloud cannot be stopped"
        return missing

    def diff(self, olds: Properties, news: Properties) -> DiffResult:
        replaces = changed(olds, news, _REPLACES)
        # The old lease goes first: the pool may have no other machine that fits.
        return DiffResult(replaces + changed(olds, news, _IN_PLACE), replaces, delete_before_replace=True)

    def preview(self, inputs: Properties, olds: Properties | None) -> Properties:
        known = olds or dict.fromkeys(("internal_ip", "external_ip", "facts", "host"), UNKNOWN)
        return {**known, **_given(inputs)}

    def create(self, call: Call, inputs: Properties) -> tuple[str, Properties]:
        declared = _declared(inputs)
        if inputs.get("image"):
            raise CloudError("user", f"the ssh cloud runs no images (asked for {inputs['image']})", declared.pool)
        call.made(declared.id, {**inputs, "id": declared.id})
        leased = self._machines.lease(declared, self._tell, call.cancelled)
        return declared.id, {**inputs, **leased.outputs()}

    def read(self, identifier: str, outputs: Properties) -> Properties | None:
        place = _place(outputs)
        if place is None:
            return outputs
        gone = self._machines.still_there(identifier, place, READ_S) is False
        return None if gone else outputs

    def update(self, call: Call, identifier: str, inputs: Properties, olds: Properties) -> Properties:
        """Also finishes a Create that was cut short: the same lease is taken again."""
        declared = _declared(inputs)
        leased = self._machines.lease(declared, self._tell, call.cancelled)
        if lacks := misfit(leased.facts, declared.demand):
            raise CloudError("capacity", f"{leased.place.host} {lacks}", declared.pool)
        return {**inputs, **leased.outputs()}

    def delete(self, call: Call, identifier: str, outputs: Properties) -> None:
        self._machines.give_back(identifier, _place(outputs))


def _place(outputs: Properties) -> Place | None:
    pool, host = outputs.get("pool"), outputs.get("host")
    return Place(pool, host) if pool and host else None


def _given(inputs: Properties) -> Properties:
    """Without the outputs, which the program declares as empty."""
    return {name: value for name, value in inputs.items() if value is not None}
