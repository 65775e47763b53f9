"""Deleting what no stack names: instances, and the groups and keys that an interrupted update left."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from skyinfra.model.home import Home
from skyinfra.runtime.boundary import boundary
from skyinfra.stacks.clouds.aws.api import Api, text_of
from skyinfra.stacks.clouds.failures import CloudError

__all__ = ["delete", "delete_stray"]

GONE_S = 300.0
POLL_S = 0.5
_DELETIONS = {
    "security-group": ("DeleteSecurityGroup", "GroupId"),
    "key-pair": ("DeleteKeyPair", "KeyName"),
    "placement-group": ("DeletePlacementGroup", "GroupName"),
    "volume": ("DeleteVolume", "VolumeId"),
}


def delete(home: Home, identifier: str, regions: Sequence[str]) -> None:
    """Terminate an instance and wait until it is. Idempotent. Raises `CloudError`."""
    api = Api()
    for region in regions:
        if _state(api, region, identifier) in ("", "terminated"):
            continue
        boundary("aws.machine.delete.before")
        api.query("ec2", region, "TerminateInstances", InstanceId=[identifier])
        boundary("aws.machine.delete.made")
        deadline = time.monotonic() + GONE_S
        while _state(api, region, identifier) not in ("", "terminated"):
            if time.monotonic() > deadline:
                raise CloudError("leftovers", f"{identifier} was told to end and did not in {GONE_S:g} s", region)
            time.sleep(POLL_S)


def delete_stray(home: Home, stray: dict[str, Any]) -> None:
    """One of `observe.observe_strays`. Idempotent. Raises `CloudError`."""
    if stray["kind"] == "rule":
        direction = "Egress" if stray["egress"] else "Ingress"
        action = f"RevokeSecurityGroup{direction}"
        words: dict[str, Any] = {"GroupId": stray["group"], "SecurityGroupRuleId": [stray["id"]]}
    else:
        action, parameter = _DELETIONS[stray["kind"]]
        words = {parameter: stray["name" if stray["kind"] == "key-pair" else "id"]}
    boundary("aws.stray.delete.before")
    try:
        Api().query("ec2", stray["region"], action, **words)
    except CloudError as exc:
        if "NotFound" not in exc.words and "Unknown" not in exc.words:
            raise
    boundary("aws.stray.delete.made")


def _state(api: Api, region: str, identifier: str) -> str:
    try:
        answer = api.query("ec2", region, "DescribeInstances", InstanceId=[identifier])
    except CloudError as exc:
        if "InvalidInstanceID.NotFound" in exc.words:
            return ""
        raise
    found = answer.findall("reservationSet/item/instancesSet/item")
    return text_of(found[0], "instanceState/name") if found else ""
