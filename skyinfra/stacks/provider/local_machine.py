"""``skyinfra:local:Machine``: a folder, a HOME and a loopback address on this host. The acts are clouds/local's."""

from __future__ import annotations

from typing import Any

from skyinfra.model.home import Home
from skyinfra.stacks.clouds.local import machine as machines
from skyinfra.stacks.provider.calls import Call, DiffResult, Properties, changed

__all__ = ["LocalMachine"]

_REPLACES = ("cluster", "slot", "incarnation", "gpus", "image")
_IN_PLACE = ("cpus", "memory_gb", "spot", "power", "server", "workspace")


def _declared(inputs: Properties) -> machines.Declared:
    gpus = inputs.get("gpus")
    return machines.Declared(
        cluster=inputs["cluster"],
        slot=int(inputs["slot"]),
        incarnation=int(inputs.get("incarnation") or 0),
        server=inputs.get("server") or "",
        workspace=inputs.get("workspace") or "",
        cpus=float(inputs.get("cpus") or 1),
        memory_gb=float(inputs.get("memory_gb") or 0),
        gpus=(gpus[0], int(gpus[1])) if gpus else None,
        image=inputs.get("image") or None,
        spot=bool(inputs.get("spot")),
        power=inputs.get("power") or "running",
    )


class LocalMachine:
    token = "skyinfra:local:Machine"

    def __init__(self, home: Home) -> None:
        self._home = home

    def check(self, inputs: Properties) -> dict[str, str]:
        return {name: "is needed" for name in ("cluster", "slot") if inputs.get(name) is None}

    def diff(self, olds: Properties, news: Properties) -> DiffResult:
        replaces = changed(olds, news, _REPLACES)
        # The old machine goes first: the new one may need its GPUs, and this host has no others.
        return DiffResult(replaces + changed(olds, news, _IN_PLACE), replaces, delete_before_replace=True)

    def preview(self, inputs: Properties, olds: Properties | None) -> Properties:
        return {**(olds or {}), **inputs}

    def create(self, call: Call, inputs: Properties) -> tuple[str, Properties]:
        declared = _declared(inputs)
        settings = machines.refuse_impossible(self._home, declared)
        identifier = machines.machine_id(declared.cluster, declared.slot, declared.incarnation)
        call.made(identifier, {**inputs, "id": identifier, "internal_ip": machines.address(identifier)})
        return identifier, self._outputs(inputs, machines.create(self._home, declared, settings))

    def read(self, identifier: str, outputs: Properties) -> Properties | None:
        machine = machines.load(self._home, identifier)
        if machine is None:
            # A folder without its record is a Create that was cut short: it exists, so it is not reported gone.
            return outputs if machines.folder(self._home, identifier).is_dir() else None
        return {**outputs, **machine.outputs()}

    def update(self, call: Call, identifier: str, inputs: Properties, olds: Properties) -> Properties:
        return self._outputs(inputs, machines.update(self._home, identifier, _declared(inputs)))

    def delete(self, call: Call, identifier: str, outputs: Properties) -> None:
        machines.delete(self._home, identifier)

    @staticmethod
    def _outputs(inputs: Properties, machine: machines.Machine) -> dict[str, Any]:
        return {**inputs, **machine.outputs()}
