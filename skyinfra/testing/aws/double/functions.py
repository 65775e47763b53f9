"""The provider's functions (invokes) that a cluster program calls."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from skyinfra.testing.aws.double.connection import Connection
from skyinfra.testing.aws.double.values import Properties, tag_dict

__all__ = ["FUNCTIONS"]


def _filters(args: Properties, **extra: str | None) -> list[Properties]:
    found = [{"Name": one["name"], "Values": one["values"]} for one in args.get("filters") or []]
    found += [{"Name": f"tag:{key}", "Values": [value]} for key, value in (args.get("tags") or {}).items()]
    return found + [{"Name": name.replace("_", "-"), "Values": [v]} for name, v in extra.items() if v is not None]


def _single(items: list[Any], what: str) -> Any:
    if not items:
        raise RuntimeError(f"no matching {what} found")
    if len(items) > 1:
        raise RuntimeError(f"multiple {what}s matched; use additional constraints to reduce matches to a single {what}")
    return items[0]


def get_vpc(connection: Connection, args: Properties, region: str) -> Properties:
    default = str(args["default"]).lower() if "default" in args else None
    ids = {"VpcIds": [args["id"]]} if args.get("id") else {}
    filters = _filters(args, is_default=default, cidr=args.get("cidrBlock"))
    vpc = _single(connection.client("ec2", region).describe_vpcs(Filters=filters, **ids)["Vpcs"], "EC2 VPC")
    return {
        "id": vpc["VpcId"],
        "arn": f"arn:aws:ec2:{region}:{vpc['OwnerId']}:vpc/{vpc['VpcId']}",
        "cidrBlock": vpc["CidrBlock"],
        "default": vpc["IsDefault"],
        "instanceTenancy": vpc["InstanceTenancy"],
        "ownerId": vpc["OwnerId"],
        "state": vpc["State"],
        "tags": tag_dict(vpc.get("Tags")),
    }


def get_subnets(connection: Connection, args: Properties, region: str) -> Properties:
    found = connection.client("ec2", region).describe_subnets(Filters=_filters(args))["Subnets"]
    return {"id": region, "ids": [subnet["SubnetId"] for subnet in found], "tags": args.get("tags") or {}}


def get_subnet(connection: Connection, args: Properties, region: str) -> Properties:
    ids = {"SubnetIds": [args["id"]]} if args.get("id") else {}
    zone, vpc = args.get("availabilityZone"), args.get("vpcId")
    filters = _filters(args, availability_zone=zone, vpc_id=vpc)
    found = connection.client("ec2", region).describe_subnets(Filters=filters, **ids)["Subnets"]
    subnet = _single(found, "EC2 Subnet")
    return {
        "id": subnet["SubnetId"],
        "vpcId": subnet["VpcId"],
        "availabilityZone": subnet["AvailabilityZone"],
        "cidrBlock": subnet["CidrBlock"],
        "mapPublicIpOnLaunch": subnet["MapPublicIpOnLaunch"],
        "tags": tag_dict(subnet.get("Tags")),
    }


def get_security_group(connection: Connection, args: Properties, region: str) -> Properties:
    ids = {"GroupIds": [args["id"]]} if args.get("id") else {}
    filters = _filters(args, group_name=args.get("name"), vpc_id=args.get("vpcId"))
    found = connection.client("ec2", region).describe_security_groups(Filters=filters, **ids)["SecurityGroups"]
    group = _single(found, "EC2 Security Group")
    return {
        "id": group["GroupId"],
        "name": group["GroupName"],
        "description": group["Description"],
        "vpcId": group.get("VpcId"),
        "tags": tag_dict(group.get("Tags")),
    }


def get_ami(connection: Connection, args: Properties, region: str) -> Properties:
    owners = {"Owners": args["owners"]} if args.get("owners") else {}
    images = connection.client("ec2", region).describe_images(Filters=_filters(args), **owners)["Images"]
    if args.get("nameRegex"):
        images = [image for image in images if re.search(args["nameRegex"], image.get("Name") or "")]
    if not images:
        raise RuntimeError("Your query returned no results. Please change your search criteria and try again.")
    if len(images) > 1 and not args.get("mostRecent"):
        raise RuntimeError(
            "Your query returned more than one result. Please try a more specific search criteria, "
            "or set `most_recent` attribute to true."
        )
    image = max(images, key=lambda one: one.get("CreationDate") or "")
    return {
        "id": image["ImageId"],
        "imageId": image["ImageId"],
        "architecture": image.get("Architecture"),
        "name": image.get("Name"),
        "ownerId": image.get("OwnerId"),
        "rootDeviceName": image.get("RootDeviceName"),
        "creationDate": image.get("CreationDate"),
        "arn": f"arn:aws:ec2:{region}::image/{image['ImageId']}",
        "state": image.get("State"),
        "tags": tag_dict(image.get("Tags")),
    }


def get_parameter(connection: Connection, args: Properties, region: str) -> Properties:
    decrypt = args.get("withDecryption", True)
    got = connection.client("ssm", region).get_parameter(Name=args["name"], WithDecryption=decrypt)["Parameter"]
    return {
        "id": args["name"],
        "arn": got["ARN"],
        "name": got["Name"],
        "type": got["Type"],
        "value": got["Value"],
        "insecureValue": got["Value"],
        "version": got["Version"],
    }


def get_availability_zones(connection: Connection, args: Properties, region: str) -> Properties:
    filters = _filters(args, state=args.get("state"))
    zones = connection.client("ec2", region).describe_availability_zones(Filters=filters)["AvailabilityZones"]
    kept = [zone for zone in zones if zone["ZoneName"] not in (args.get("excludeNames") or [])]
    return {
        "id": region,
        "names": [zone["ZoneName"] for zone in kept],
        "zoneIds": [zone["ZoneId"] for zone in kept],
        "groupNames": sorted({zone.get("GroupName", region) for zone in kept}),
    }


def get_caller_identity(connection: Connection, args: Properties, region: str) -> Properties:
    who = connection.client("sts").get_caller_identity()
    return {"id": who["Account"], "accountId": who["Account"], "arn": who["Arn"], "userId": who["UserId"]}


def get_region(connection: Connection, args: Properties, region: str) -> Properties:
    endpoint = f"ec2.{region}.amazonaws.com"
    return {"id": region, "name": region, "region": region, "description": region, "endpoint": endpoint}


FUNCTIONS: dict[str, Callable[[Connection, Properties, str], Properties]] = {
    "aws:ec2/getVpc:getVpc": get_vpc,
    "aws:ec2/getSubnets:getSubnets": get_subnets,
    "aws:ec2/getSubnet:getSubnet": get_subnet,
    "aws:ec2/getSecurityGroup:getSecurityGroup": get_security_group,
    "aws:ec2/getAmi:getAmi": get_ami,
    "aws:ssm/getParameter:getParameter": get_parameter,
    "aws:index/getAvailabilityZones:getAvailabilityZones": get_availability_zones,
    "aws:index/getCallerIdentity:getCallerIdentity": get_caller_identity,
    "aws:index/getRegion:getRegion": get_region,
}
