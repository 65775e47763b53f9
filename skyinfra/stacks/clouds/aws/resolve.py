"""A spec's names -> ids, once, when a cluster is placed: image, zone, network, group, profile. Then they are pinned.

So a newer image never replaces a live node, and the program looks nothing up. Everything here is a question to the
account; a wrong name is one `CloudError` (user) that says which setting it came from.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from skyinfra.model.home import Home
from skyinfra.model.spec import ClusterSpec
from skyinfra.stacks.clouds.aws.api import Api, text_of
from skyinfra.stacks.clouds.aws.facts import DISK_TIERS, image_parameter
from skyinfra.stacks.clouds.aws.keys import public_key
from skyinfra.stacks.clouds.failures import CloudError

__all__ = ["resolve"]

_ZONE_ID = re.compile(r"[a-z]+\d+-az\d+")
_UNSUPPORTED = ("use_ssm", "prioritize_reservations", "enforce_tags")


def resolve(
    home: Home, spec: ClusterSpec, wanted: Mapping[str, Any], config: Mapping[str, Any], api: Api
) -> ClusterSpec:
    """The spec as it can be carried out.

    `wanted`: of the task's resources, ``{image_id, disk_tier, network_tier}``; `config`: the configuration's ``aws``
    section. Raises `CloudError`.
    """
    region = spec.region or ""
    for name in _UNSUPPORTED:
        if config.get(name):
            raise CloudError("user", f"aws.{name} is not in skyinfra yet; leave it out")
    if wanted.get("network_tier") == "best":
        raise CloudError("user", "network_tier: best needs EFA, which is not in skyinfra on AWS yet; leave it out")
    tier = wanted.get("disk_tier")
    if tier is not None and tier not in DISK_TIERS:
        raise CloudError("user", f"disk_tier: {tier} is none of AWS's: {', '.join(DISK_TIERS)}")
    image = _image(api, region, spec, wanted.get("image_id"))
    settings = _settings(api, region, spec, config)
    return dataclasses.replace(
        spec,
        slots=tuple(dataclasses.replace(slot, image=image, disk_tier=tier) for slot in spec.slots),
        zones=_zone_names(api, region, spec.zones),
        labels={**(config.get("labels") or {}), **spec.labels},
        settings=settings,
        public_key=public_key(home),
    )


def _image(api: Api, region: str, spec: ClusterSpec, asked: Any) -> str:
    if isinstance(asked, Mapping):
        asked = asked.get(region) or asked.get(None)
    if asked is None:
        slot = spec.slots[0]
        return api.parameter(region, image_parameter(slot.instance_type, bool(slot.gpus)))
    if str(asked).startswith("docker:"):
        raise CloudError("user", f"image_id: {asked}: containers are not in skyinfra on AWS yet")
    if not str(asked).startswith("ami-"):
        raise CloudError("user", f"image_id: {asked} is no AMI (ami-…)")
    found = api.query("ec2", region, "DescribeImages", ImageId=[asked]).findall("imagesSet/item")
    if not found:
        raise CloudError("user", f"image_id: {asked} does not exist in {region}, or is not shared with this account")
    return str(asked)


def _zone_names(api: Api, region: str, zones: tuple[str, ...]) -> tuple[str, ...]:
    """The catalog speaks of zone ids (use1-az4), which are the same for everybody; machines are placed by name."""
    if not any(_ZONE_ID.fullmatch(zone) for zone in zones):
        return zones
    found = api.query("ec2", region, "DescribeAvailabilityZones").findall("availabilityZoneInfo/item")
    names = {text_of(zone, "zoneId"): text_of(zone, "zoneName") for zone in found}
    unknown = [zone for zone in zones if zone not in names and zone not in names.values()]
    if unknown:  # of a newer catalog, or closed to this account: another place, not an error of the user's
        raise CloudError("capacity", f"this account has no zone {unknown[0]} in {region}", region)
    return tuple(names.get(zone, zone) for zone in zones)


def _settings(api: Api, region: str, spec: ClusterSpec, config: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {
        name: config[name]
        for name in ("use_internal_ips", "ssh_user", "ssh_proxy_command", "disk_encrypted", "post_provision_runcmd")
        if config.get(name)
    }
    names = config.get("vpc_names") or config.get("vpc_name")
    if names:
        vpc = _vpc(api, region, [names] if isinstance(names, str) else list(names))
        found |= {"vpc_id": vpc, "subnets": _subnets(api, region, vpc, config)}
    if group := config.get("security_group_name"):
        found["security_group_id"] = _group(api, region, str(group), found.get("vpc_id"))
    identity = config.get("remote_identity")
    if isinstance(identity, str) and identity not in ("LOCAL_CREDENTIALS", "SERVICE_ACCOUNT", "NO_UPLOAD"):
        found["instance_profile"] = identity
    return found


def _vpc(api: Api, region: str, names: list[str]) -> str:
    by_name = [{"Name": "tag:Name", "Value": names}]
    for vpc in api.query("ec2", region, "DescribeVpcs", Filter=by_name).findall("vpcSet/item"):
        return text_of(vpc, "vpcId")
    raise CloudError("user", f"aws.vpc_name: there is no VPC named {' or '.join(names)} in {region}", region)


def _subnets(api: Api, region: str, vpc: str, config: Mapping[str, Any]) -> dict[str, str]:
    """One subnet per zone: public ones, unless only internal addresses are wanted."""
    named = config.get("subnet_names")
    filters = [{"Name": "vpc-id", "Value": [vpc]}]
    if named:
        filters.append({"Name": "tag:Name", "Value": [named] if isinstance(named, str) else list(named)})
    found = api.query("ec2", region, "DescribeSubnets", Filter=filters).findall("subnetSet/item")
    if not found:
        which = f"named {named} " if named else ""
        raise CloudError("user", f"aws.subnet_names: VPC {vpc} has no subnet {which}in {region}".strip(), region)
    zones = {text_of(subnet, "availabilityZone"): text_of(subnet, "subnetId") for subnet in found}
    if config.get("use_internal_ips"):
        return zones
    public = _public_subnets(api, region, vpc, set(zones.values()))
    kept = {zone: subnet for zone, subnet in zones.items() if subnet in public}
    if not kept:
        words = f"VPC {vpc} has no subnet with a route to the internet; set aws.use_internal_ips, or give it a gateway"
        raise CloudError("user", words, region)
    return kept


def _public_subnets(api: Api, region: str, vpc: str, subnets: set[str]) -> set[str]:
    """Those whose route table, their own or else the VPC's, leads to an internet gateway."""
    tables = api.query("ec2", region, "DescribeRouteTables", Filter=[{"Name": "vpc-id", "Value": [vpc]}])
    open_by_default, own = False, {}
    for table in tables.findall("routeTableSet/item"):
        leads_out = any(text_of(route, "gatewayId").startswith("igw-") for route in table.findall("routeSet/item"))
        for association in table.findall("associationSet/item"):
            if text_of(association, "main") == "true":
                open_by_default = leads_out
            elif subnet := text_of(association, "subnetId"):
                own[subnet] = leads_out
    return {subnet for subnet in subnets if own.get(subnet, open_by_default)}


def _group(api: Api, region: str, name: str, vpc: str | None) -> str:
    filters = [{"Name": "group-name", "Value": [name]}]
    if vpc:
        filters.append({"Name": "vpc-id", "Value": [vpc]})
    for group in api.query("ec2", region, "DescribeSecurityGroups", Filter=filters).findall("securityGroupInfo/item"):
        return text_of(group, "groupId")
    where = f"VPC {vpc}" if vpc else "the default VPC"
    raise CloudError("user", f"aws.security_group_name: there is no group {name} in {where} of {region}", region)
