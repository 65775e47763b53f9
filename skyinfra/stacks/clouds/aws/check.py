"""`skyinfra check aws`: who the credentials are, each missing right by its name, and the quota of the GPU families."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from skyinfra.stacks.clouds.aws.api import Api, text_of
from skyinfra.stacks.clouds.failures import CloudError
from skyinfra.stacks.clouds.registry import Standing

__all__ = ["RIGHTS", "home_region", "look"]

HOME_REGION = "us-east-1"

RIGHTS: Mapping[str, Mapping[str, Any]] = {
    "ec2:DescribeInstances": {},
    "ec2:DescribeImages": {"Owner": ["self"]},
    "ec2:DescribeVolumes": {},
    "ec2:DescribeSecurityGroups": {},
    "ec2:DescribeSecurityGroupRules": {},
    "ec2:DescribeKeyPairs": {},
    "ec2:DescribeSubnets": {},
    "ec2:DescribeVpcs": {},
    "ec2:DescribeAvailabilityZones": {},
    "ec2:DescribeRegions": {},
    "ec2:DescribePlacementGroups": {},
    "ec2:RunInstances": {
        "DryRun": "true",
        "ImageId": "ami-00000000000000000",
        "InstanceType": "t3.micro",
        "MinCount": 1,
        "MaxCount": 1,
    },
    "ec2:CreateSecurityGroup": {
        "DryRun": "true",
        "GroupName": "skyinfra-check",
        "GroupDescription": "skyinfra check",
    },
}
"""What a cluster needs and can be tried without doing it, with the words that try it."""


def home_region() -> str:
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or HOME_REGION


def look(api: Api) -> Standing:
    """Raises `CloudError` when AWS does not know the credentials, or does not answer."""
    region = home_region()
    who = api.query("sts", region, "GetCallerIdentity")
    account, arn = text_of(who, "GetCallerIdentityResult/Account"), text_of(who, "GetCallerIdentityResult/Arn")
    with ThreadPoolExecutor(len(RIGHTS)) as pool:
        missing = [right for right in pool.map(lambda right: _missing(api, region, right), RIGHTS) if right]
    details = {"account": account, "identity": arn, "region": region, "missing": missing}
    if missing:
        return Standing(False, f"{arn} lacks {', '.join(missing)}: see docs/how-to/aws.md", details)
    return Standing(True, f"account {account} as {arn.rpartition(':')[2]}", details)


def _missing(api: Api, region: str, right: str) -> str | None:
    """The right when AWS says that it is not given; any other answer shows that it is."""
    try:
        api.query("ec2", region, right.partition(":")[2], **RIGHTS[right])
    except CloudError as exc:
        if exc.kind == "permission":
            return right
        if exc.kind in ("credentials", "transient"):
            raise
    return None
