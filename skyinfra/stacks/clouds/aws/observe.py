"""What EC2 really has of ours, by tag: one call per region. Never the stack, never an empty answer for a failed one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

from skyinfra.model.home import Home
from skyinfra.stacks.clouds.aws.api import Api, Element, text_of

__all__ = ["observe", "observe_strays", "regions_of"]

_STATES = {
    "pending": "creating",
    "running": "running",
    "stopping": "stopped",
    "stopped": "stopped",
    "shutting-down": "deleting",
}
_OURS = "skyinfra-cluster"
_MAX_REGIONS_AT_ONCE = 8


def observe(home: Home, cluster: str | None, regions: Sequence[str], api: Api | None = None) -> list[dict[str, Any]]:
    """Machines of the cluster (its stack name), or all of ours, by slot: ``{cluster, slot, incarnation, id, …}``.

    Raises `CloudError`. A terminated instance is not there; one that was just made may not be there yet
    (`FACTS["visibility_delay_s"]`).
    """
    asked = api or Api()
    found = _in_regions(regions, lambda region: _instances(asked, region, cluster))
    return sorted(found, key=lambda seen: (seen["cluster"], seen["slot"], seen["incarnation"], seen["id"]))


def regions_of(api: Api, home_region: str) -> list[str]:
    """The regions that are open to the account. Raises `CloudError`."""
    found = api.query("ec2", home_region, "DescribeRegions").findall("regionInfo/item")
    return [text_of(region, "regionName") for region in found]


def observe_strays(home: Home, cluster: str, regions: Sequence[str], api: Api | None = None) -> list[dict[str, Any]]:
    """What else carries the cluster's tag, in the order in which it can be deleted: ``{kind, id, name, region, …}``.

    Disks only where no instance has them: the others go with theirs. Raises `CloudError`.
    """
    asked = api or Api()
    return _in_regions(regions, lambda region: _others(asked, region, cluster))


def _in_regions(regions: Iterable[str], look: Any) -> list[dict[str, Any]]:
    wanted = sorted(set(regions))
    if len(wanted) < 2:
        return [one for region in wanted for one in look(region)]
    with ThreadPoolExecutor(min(_MAX_REGIONS_AT_ONCE, len(wanted))) as pool:
        return [one for found in pool.map(look, wanted) for one in found]


def _filter(cluster: str | None) -> list[dict[str, Any]]:
    if cluster is None:
        return [{"Name": "tag-key", "Value": [_OURS]}]
    return [{"Name": f"tag:{_OURS}", "Value": [cluster]}]


def _instances(api: Api, region: str, cluster: str | None) -> list[dict[str, Any]]:
    live = {"Name": "instance-state-name", "Value": list(_STATES)}
    pages = api.pages(region, "DescribeInstances", "reservationSet/item", Filter=[*_filter(cluster), live])
    return [_machine(instance, region) for page in pages for instance in page.findall("instancesSet/item")]


def _machine(instance: Element, region: str) -> dict[str, Any]:
    tags = {text_of(tag, "key"): text_of(tag, "value") for tag in instance.findall("tagSet/item")}
    state = text_of(instance, "instanceState/name")
    why = text_of(instance, "stateReason/code")
    return {
        "cluster": tags.get(_OURS, ""),
        "slot": int(tags.get("skyinfra-slot") or 0),
        "incarnation": int(tags.get("skyinfra-incarnation") or 0),
        "id": text_of(instance, "instanceId"),
        "state": _STATES[state],
        "internal_ip": text_of(instance, "privateIpAddress") or None,
        "external_ip": text_of(instance, "ipAddress") or text_of(instance, "privateIpAddress") or None,
        "spot": text_of(instance, "instanceLifecycle") == "spot",
        "workspace": tags.get("skyinfra-workspace", ""),
        "server": tags.get("skyinfra-server", ""),
        "stopped_by": "autostop" if why == "Client.InstanceInitiatedShutdown" else None,
        "region": region,
        "zone": text_of(instance, "placement/availabilityZone"),
        "instance_type": text_of(instance, "instanceType"),
        "launched_at": _seconds(text_of(instance, "launchTime")),
    }


def _seconds(moment: str) -> float | None:
    """Since the epoch, of ``2026-11-24T18:00:00.000Z``."""
    return datetime.fromisoformat(moment).timestamp() if moment else None


_OTHERS = (
    # In the order in which they can be deleted.
    ("rule", "DescribeSecurityGroupRules", "securityGroupRuleSet/item", "securityGroupRuleId"),
    ("security-group", "DescribeSecurityGroups", "securityGroupInfo/item", "groupId"),
    ("key-pair", "DescribeKeyPairs", "keySet/item", "keyPairId"),
    ("placement-group", "DescribePlacementGroups", "placementGroupSet/item", "groupName"),
    ("volume", "DescribeVolumes", "volumeSet/item", "volumeId"),
)


def _others(api: Api, region: str, cluster: str) -> list[dict[str, Any]]:
    def look(kind: str, action: str, items: str, identifier: str) -> list[dict[str, Any]]:
        answer = api.query("ec2", region, action, Filter=_filter(cluster))
        found = [item for item in answer.findall(items) if kind != "volume" or text_of(item, "status") == "available"]
        return [_other(kind, item, text_of(item, identifier), region) for item in found]

    with ThreadPoolExecutor(len(_OTHERS)) as pool:
        return [one for found in pool.map(lambda other: look(*other), _OTHERS) for one in found]


def _other(kind: str, item: Element, identifier: str, region: str) -> dict[str, Any]:
    name = text_of(item, "keyName") or (text_of(item, "groupName") if kind != "rule" else "") or identifier
    about = {"kind": kind, "id": identifier, "name": name, "region": region}
    if kind == "rule":
        return {**about, "group": text_of(item, "groupId"), "egress": text_of(item, "isEgress") == "true"}
    return about
