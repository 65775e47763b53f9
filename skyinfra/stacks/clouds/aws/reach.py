"""Where an instance is now, and how one logs in to it: for the server's channels and for the agent's resource."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from skyinfra.channels.ssh_target import SshFailed, SshTarget
from skyinfra.model.home import Home
from skyinfra.model.spec import ClusterSpec
from skyinfra.stacks.clouds.aws.api import Api, text_of
from skyinfra.stacks.clouds.aws.facts import login_user
from skyinfra.stacks.clouds.aws.keys import private_key_file
from skyinfra.stacks.clouds.failures import CloudError

__all__ = ["ROOT", "SOCKET", "Whereabouts", "channel_of", "find", "target_of"]

ROOT = "~/.skyinfra-node"
SOCKET = f"{ROOT}/agent.sock"
Whereabouts = tuple[str, str | None, str | None]
"""State, private and public address."""


def channel_of(machine_id: str, spec: ClusterSpec) -> dict[str, str]:
    """What a stack keeps of the way to an agent: no address, for a start gives another one."""
    channel = {
        "kind": "ssh",
        "cloud": "aws",
        "machine": machine_id,
        "region": spec.region or "",
        "user": login_user(spec),
        "socket": SOCKET,
    }
    if spec.settings.get("use_internal_ips"):
        channel["internal"] = "true"
    if command := spec.settings.get("ssh_proxy_command"):
        channel["proxy_command"] = command
    return channel


def find(api: Api, region: str, machine_id: str) -> Whereabouts | None:
    """None when it is gone. Raises `CloudError`."""
    try:
        answer = api.query("ec2", region, "DescribeInstances", InstanceId=[machine_id])
    except CloudError as exc:
        if "InvalidInstanceID.NotFound" in exc.words:
            return None
        raise
    for instance in answer.findall("reservationSet/item/instancesSet/item"):
        state = text_of(instance, "instanceState/name")
        if state == "terminated":
            return None
        private, public = text_of(instance, "privateIpAddress") or None, text_of(instance, "ipAddress") or None
        return state, private, public
    return None


def target_of(home: Home, channel: Mapping[str, Any], api: Api) -> SshTarget:
    """Raises `SshFailed`: fatal for a machine that is gone, not for one that has no address now or a silent AWS."""
    machine_id = channel["machine"]
    try:
        found = find(api, channel["region"], machine_id)
    except CloudError as exc:
        raise SshFailed(f"where {machine_id} is cannot be asked: {exc.words}") from exc
    if found is None:
        raise SshFailed(f"{machine_id} is gone", fatal=True)
    state, private, public = found
    address = private if channel.get("internal") else public
    if state != "running" or not address:
        which = "private" if channel.get("internal") else "public"
        raise SshFailed(f"{machine_id} is {state}" + ("" if address else f" and has no {which} address"))
    return SshTarget(
        address,
        user=channel["user"],
        identity_file=str(private_key_file(home)),
        proxy_command=channel.get("proxy_command"),
        known_hosts=home.known_hosts,
        host_key_name=machine_id,  # addresses change owners
        use_config=False,
    )
