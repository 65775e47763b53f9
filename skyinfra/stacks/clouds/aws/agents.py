"""Agents on EC2: where a machine id is now, for `remote.agents`. The machine is ours alone: its HOME is the jobs'."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from skyinfra.channels.ssh_target import SshFailed
from skyinfra.model.home import Home
from skyinfra.model.spec import ClusterSpec
from skyinfra.stacks.clouds.aws.api import Api
from skyinfra.stacks.clouds.aws.reach import ROOT, SOCKET, channel_of, find, target_of
from skyinfra.stacks.clouds.failures import CloudError
from skyinfra.stacks.remote.agents import Cancelled, Machine
from skyinfra.stacks.remote.program import ask

__all__ = ["Locator"]

#: From "running" to a login that works: cloud-init creates the user and its key late in a boot.
BOOT_S = 300.0
ASK_S = 60.0


class Locator:
    """Implements `remote.agents.Locate` for one cluster. `spec` None: its region is not known, so nothing is found."""

    def __init__(self, home: Home, spec: ClusterSpec | None, tell: Callable[[str], None]) -> None:
        self._home = home
        self._spec = spec
        self._tell = tell

    def __call__(self, machine_id: str) -> Machine | None:
        spec = self._spec
        if spec is None or spec.region is None:
            return None
        api = Api()
        found = find(api, spec.region, machine_id)
        if found is None or found[0] not in ("pending", "running"):
            return None
        channel = channel_of(machine_id, spec)

        def asked(request: dict[str, Any], cancelled: Cancelled) -> dict[str, Any]:
            return self._ask(channel, request, cancelled, api)

        return Machine(
            name=machine_id,
            ask=asked,
            root=ROOT,
            socket=SOCKET,
            channel=channel,
            home="~",
            absolute_paths=True,
        )

    def _ask(self, channel: dict[str, str], request: dict[str, Any], cancelled: Cancelled, api: Api) -> dict[str, Any]:
        from skyinfra.channels.ssh_connection import connect  # here: only who meets a machine needs paramiko

        name, deadline = channel["machine"], time.monotonic() + BOOT_S
        try:
            target = target_of(self._home, channel, api)
            connection = connect(
                target, deadline, cancelled, lambda text: self._tell(f"{name}: {text}"), retry_login=True
            )
        except SshFailed as exc:
            raise CloudError("transient", f"{name} cannot be reached: {exc.reason}", channel["region"]) from exc
        try:
            return ask(connection, name, request, ASK_S)
        finally:
            connection.close()

    def _teller(self, name: str) -> Callable[[str], None]:
        return lambda text: self._tell(f"{name}: {text}")
