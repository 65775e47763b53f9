"""What EC2 can do, what our things are called there, and which variables lead to an account. No Pulumi, no SDK."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from skyinfra.model.spec import ClusterSpec, Slot

__all__ = [
    "CREDENTIAL_NAMES",
    "DISK_TIERS",
    "ENV_NAMES",
    "FACTS",
    "MACHINE_TYPE",
    "MAX_USER_DATA_BYTES",
    "image_parameter",
    "login_user",
    "slot_tags",
    "tags",
]

MACHINE_TYPE = "aws:ec2/instance:Instance"
#: Of EC2 itself, before base64.
MAX_USER_DATA_BYTES = 16 * 1024

CREDENTIAL_NAMES = (
    *("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE"),
    *("AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"),
)
"""Any of these means that somebody meant to give us credentials."""

ENV_NAMES = (
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_DEFAULT_PROFILE"),
    *("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_CA_BUNDLE"),
    *("AWS_ROLE_ARN", "AWS_ROLE_SESSION_NAME", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_EC2_METADATA_DISABLED"),
    *("AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"),
    *("AWS_CONTAINER_AUTHORIZATION_TOKEN", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"),
    *("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_EC2", "AWS_ENDPOINT_URL_SSM", "AWS_ENDPOINT_URL_STS"),
    *("AWS_ENDPOINT_URL_IAM", "AWS_USE_FIPS_ENDPOINT", "AWS_USE_DUALSTACK_ENDPOINT"),
)
"""What a worker on this cloud is given of the server's environment, on its pipe. Nothing of it reaches a state."""

FACTS: dict[str, Any] = {
    "capabilities": ["stop", "autostop", "spot", "multi_node", "ports"],
    "visibility_delay_s": 2.0,
    "provider_retries": 2,
    "attempt_deadline_s": 600.0,
    "machine_types": [MACHINE_TYPE],
    "regional": True,
    "adopts_by_tag": True,
    "plugin": True,
    "env_names": ENV_NAMES,
}

DISK_TIERS: Mapping[str, Mapping[str, Any]] = {
    "low": {"volume_type": "standard"},
    "medium": {"volume_type": "gp3", "iops": 3500, "throughput": 125},
    "high": {"volume_type": "gp3", "iops": 7000, "throughput": 125},
    "ultra": {"volume_type": "gp3", "iops": 16000, "throughput": 1000},
    "best": {"volume_type": "gp3", "iops": 7000, "throughput": 125},
}

_UBUNTU = "/aws/service/canonical/ubuntu/server/22.04/stable/current/{arch}/hvm/ebs-gp2/ami-id"
_DEEP_LEARNING = "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-22.04/latest/ami-id"
#: Families with Graviton processors: the digit is followed by a g (c7g, m6gd, t4g, g5g).
_ARM_MARK = "g"


def image_parameter(instance_type: str, gpus: bool) -> str:
    """The public parameter that names today's image for this type."""
    family = instance_type.partition(".")[0]
    generation = family.lstrip("abcdefghijklmnopqrstuvwxyz")
    arm = _ARM_MARK in generation
    return _DEEP_LEARNING if gpus and not arm else _UBUNTU.format(arch="arm64" if arm else "amd64")


def login_user(spec: ClusterSpec) -> str:
    """Who logs in over SSH: the images that we choose have this user; another image's is configured."""
    return spec.settings.get("ssh_user") or "ubuntu"


def tags(spec: ClusterSpec) -> dict[str, str]:
    """What every resource of the cluster carries. The user's labels first: ours win."""
    return {
        **spec.labels,
        "skyinfra-server": spec.server,
        "skyinfra-workspace": spec.workspace,
        "skyinfra-cluster": spec.stack,
    }


def slot_tags(spec: ClusterSpec, slot: Slot) -> dict[str, str]:
    """What a machine and its disk carry, from the call on that makes them."""
    return {
        **tags(spec),
        "Name": f"{spec.stack}-{slot.slot}",
        "skyinfra-slot": str(slot.slot),
        "skyinfra-incarnation": str(slot.incarnation),
    }
