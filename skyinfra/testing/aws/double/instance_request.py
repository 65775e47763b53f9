"""The `RunInstances` request that the provider makes of an instance's inputs."""

from __future__ import annotations

import base64
import hashlib
import time

from botocore.exceptions import ClientError

from skyinfra.testing.aws.double.resource import Resource, one
from skyinfra.testing.aws.double.values import Properties, clean, pascal

__all__ = ["launch_request"]

_EBS = ("volumeSize", "volumeType", "iops", "throughput", "encrypted", "kmsKeyId", "deleteOnTermination")


def launch_request(resource: Resource, inputs: Properties, tags: dict[str, str]) -> Properties:
    profile = inputs.get("iamInstanceProfile")
    monitoring = inputs.get("monitoring")
    disk_tags = {**(inputs.get("volumeTags") or {}), **((inputs.get("rootBlockDevice") or {}).get("tags") or {})}
    request = {
        "ImageId": inputs.get("ami"),
        "InstanceType": inputs.get("instanceType"),
        "KeyName": inputs.get("keyName"),
        "DisableApiStop": inputs.get("disableApiStop"),
        "DisableApiTermination": inputs.get("disableApiTermination"),
        "EbsOptimized": inputs.get("ebsOptimized"),
        "InstanceInitiatedShutdownBehavior": inputs.get("instanceInitiatedShutdownBehavior"),
        "UserData": _user_data(inputs),
        "IamInstanceProfile": {"Arn" if profile.startswith("arn:") else "Name": profile} if profile else None,
        "Monitoring": {"Enabled": monitoring} if monitoring is not None else None,
        "Placement": _placement(inputs) or None,
        "BlockDeviceMappings": _disks(resource, inputs) or None,
        "TagSpecifications": [
            *resource.tag_specifications("instance", tags),
            *resource.tag_specifications("volume", disk_tags),
        ]
        or None,
        "ClientToken": hashlib.sha256(f"{resource.urn}{time.time_ns()}".encode()).hexdigest()[:32],
        **{
            key[0].upper() + key[1:]: pascal(inputs[key])
            for key in ("metadataOptions", "cpuOptions", "capacityReservationSpecification", "instanceMarketOptions")
            if inputs.get(key)
        },
        **_network(resource, inputs),
    }
    return clean(request)


def _user_data(inputs: Properties) -> str | None:
    if inputs.get("userData"):
        return inputs["userData"]
    encoded = inputs.get("userDataBase64")
    return base64.b64decode(encoded).decode("latin1") if encoded else None


def _placement(inputs: Properties) -> Properties:
    return clean(
        {
            "AvailabilityZone": inputs.get("availabilityZone"),
            "GroupName": inputs.get("placementGroup"),
            "Tenancy": inputs.get("tenancy"),
        }
    )


def _network(resource: Resource, inputs: Properties) -> Properties:
    groups, public = inputs.get("vpcSecurityGroupIds"), inputs.get("associatePublicIpAddress")
    if public is None:
        plain = {"SubnetId": inputs.get("subnetId"), "PrivateIpAddress": inputs.get("privateIp")}
        return clean({**plain, "SecurityGroupIds": groups})
    interface = {
        "DeviceIndex": 0,
        "AssociatePublicIpAddress": public,
        "SubnetId": inputs.get("subnetId") or _default_subnet(resource, inputs),
        "PrivateIpAddress": inputs.get("privateIp"),
        "Groups": groups,
        "DeleteOnTermination": True,
    }
    return {"NetworkInterfaces": [clean(interface)]}


def _default_subnet(resource: Resource, inputs: Properties) -> str:
    filters = [{"Name": "default-for-az", "Values": ["true"]}]
    if inputs.get("availabilityZone"):
        filters.append({"Name": "availability-zone", "Values": [inputs["availabilityZone"]]})
    return one(resource.ec2.describe_subnets(Filters=filters)["Subnets"])["SubnetId"]


def _disks(resource: Resource, inputs: Properties) -> list[Properties]:
    disk = inputs.get("rootBlockDevice")
    if not disk:
        return []
    ebs = pascal(clean({key: disk.get(key) for key in _EBS}))
    ebs.setdefault("DeleteOnTermination", True)
    return [{"DeviceName": _root_device(resource, inputs.get("ami")), "Ebs": ebs}]


def _root_device(resource: Resource, ami: str | None) -> str:
    try:
        images = resource.ec2.describe_images(ImageIds=[ami])["Images"]
    except ClientError:
        images = []  # RunInstances is about to say that there is no such image
    return (images[0].get("RootDeviceName") if images else None) or "/dev/sda1"
