"""EC2's part of the program: a key pair, a security group with one rule per port, and an instance per slot.

Nothing is looked up here: images, networks and groups are in the spec by id (`resolve` put them there), so equal specs
plan equal resources. Credentials and endpoint come from the environment and never become an input, so no state holds
them. Resources carry our tags from the call on that makes them: whoever is killed after it can be cleaned up after.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_aws as aws

from skyinfra.model.spec import ClusterSpec, Slot
from skyinfra.stacks.clouds.aws.facts import DISK_TIERS, FACTS, MAX_USER_DATA_BYTES, slot_tags, tags

__all__ = ["Machine", "Shared", "declare_machine", "declare_shared"]

SSH_PORT = 22
_ANYWHERE = "0.0.0.0/0"

# The SDK's lazy imports are not thread-safe: touch what is used while there is one thread.
_ = (aws.ec2.Instance, aws.ec2transitgateway.InstanceState, aws.vpc.SecurityGroupIngressRule, aws.Provider)


class Machine(aws.ec2.Instance):
    """An instance, with the names that the cluster program knows. Its addresses are as of the last update."""

    @property
    def internal_ip(self) -> pulumi.Output[str]:
        return self.private_ip

    @property
    def external_ip(self) -> pulumi.Output[str]:
        return self.public_ip


@dataclass(frozen=True)
class Shared:
    """What all machines of one cluster have in common."""

    opts: pulumi.ResourceOptions
    key_name: pulumi.Input[str] | None
    groups: list[pulumi.Input[str]]
    placement_group: pulumi.Input[str] | None


def declare_shared(name: str, spec: ClusterSpec, opts: pulumi.ResourceOptions) -> Shared:
    provider = aws.Provider(
        f"{name}-aws",
        region=spec.region,
        # Of the SDK, in all: a stock-out is answered with HTTP 500 and would be retried for minutes. Ours is the
        # deadline, and ours are the retries.
        max_retries=FACTS["provider_retries"],
        opts=pulumi.ResourceOptions(parent=opts.parent),
    )
    ours = pulumi.ResourceOptions(parent=opts.parent, provider=provider)
    key = aws.ec2.KeyPair(f"{name}-key", public_key=spec.public_key, tags=tags(spec), opts=ours).key_name
    group = spec.settings.get("security_group_id")
    groups: list[pulumi.Input[str]] = [group] if group else [_declare_group(name, spec, ours)]
    placement_group = None
    if spec.settings.get("network_tier") == "best" and len(spec.slots) > 1:
        made = aws.ec2.PlacementGroup(f"{name}-placement", strategy="cluster", tags=tags(spec), opts=ours)
        placement_group = made.name
    return Shared(ours, key, groups, placement_group)


def _declare_group(name: str, spec: ClusterSpec, opts: pulumi.ResourceOptions) -> pulumi.Output[str]:
    """Each rule is a resource of its own, so that a port that was opened or lost by hand is one line in a diff."""
    group = aws.ec2.SecurityGroup(
        f"{name}-group",
        description=f"skyinfra cluster {spec.stack}",
        vpc_id=spec.settings.get("vpc_id"),
        tags=tags(spec),
        opts=opts,
    )

    def allow(rule: str, source: dict[str, Any], ports: tuple[int, int] | None) -> None:
        first, last = ports or (None, None)
        aws.vpc.SecurityGroupIngressRule(
            f"{name}-in-{rule}",
            security_group_id=group.id,
            ip_protocol="tcp" if ports else "-1",
            from_port=first,
            to_port=last,
            tags=tags(spec),
            opts=opts,
            **source,
        )

    allow("ssh", {"cidr_ipv4": _ANYWHERE}, (SSH_PORT, SSH_PORT))
    allow("nodes", {"referenced_security_group_id": group.id}, None)
    for port in spec.ports:
        first, _, last = port.partition("-")
        allow(port, {"cidr_ipv4": _ANYWHERE}, (int(first), int(last or first)))
    aws.vpc.SecurityGroupEgressRule(
        f"{name}-out",
        security_group_id=group.id,
        ip_protocol="-1",
        cidr_ipv4=_ANYWHERE,
        tags=tags(spec),
        opts=opts,
    )
    return group.id


def declare_machine(name: str, spec: ClusterSpec, slot: Slot, opts: pulumi.ResourceOptions, shared: Shared) -> Machine:
    """Raises `ValueError` for user data over EC2's limit."""
    machine = Machine(
        name,
        ami=slot.image,
        instance_type=slot.instance_type,
        key_name=shared.key_name,
        vpc_security_group_ids=shared.groups,
        placement_group=shared.placement_group,
        root_block_device=_disk(spec, slot),
        metadata_options=aws.ec2.InstanceMetadataOptionsArgs(
            http_endpoint="enabled", http_tokens="required", http_put_response_hop_limit=2
        ),
        instance_market_options=_market(spec) if slot.spot else None,
        instance_initiated_shutdown_behavior=_shutdown_behavior(spec, slot),
        iam_instance_profile=spec.settings.get("instance_profile"),
        capacity_reservation_specification=_reservation(spec),
        user_data=_user_data(spec),
        tags=slot_tags(spec, slot),
        opts=pulumi.ResourceOptions.merge(
            shared.opts,
            pulumi.ResourceOptions(
                replacement_trigger=slot.incarnation,
                # Another text would restart the machine, and it is read at the first boot only.
                ignore_changes=["userData"],
            ),
        ),
        **_place(spec),
    )
    _declare_power(name, spec, machine, shared.opts)
    return machine


def _declare_power(name: str, spec: ClusterSpec, machine: Machine, opts: pulumi.ResourceOptions) -> None:
    """Only once a cluster has been stopped: until then it would cost a resource and a wait for nothing."""
    if spec.power == "running" and spec.boot == 0:
        return
    aws.ec2transitgateway.InstanceState(
        f"{name}-power",
        instance_id=machine.id,
        state=spec.power,
        opts=pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(deleted_with=machine)),
    )


def _place(spec: ClusterSpec) -> dict[str, Any]:
    """A subnet of the user's network, else a zone, else whatever zone EC2 has room in."""
    zone = spec.zones[0] if len(spec.zones) == 1 else None
    subnets: dict[str, str] = spec.settings.get("subnets") or {}
    if subnets:
        chosen = zone if zone in subnets else min(subnets)
        public = not spec.settings.get("use_internal_ips")
        return {"subnet_id": subnets[chosen], "associate_public_ip_address": public}
    internal = {"associate_public_ip_address": False} if spec.settings.get("use_internal_ips") else {}
    return {"availability_zone": zone, **internal}


def _disk(spec: ClusterSpec, slot: Slot) -> aws.ec2.InstanceRootBlockDeviceArgs:
    return aws.ec2.InstanceRootBlockDeviceArgs(
        volume_size=slot.disk_gb,
        encrypted=True if spec.settings.get("disk_encrypted") else None,
        delete_on_termination=True,
        tags=slot_tags(spec, slot),
        **DISK_TIERS[slot.disk_tier or "medium"],
    )


def _market(spec: ClusterSpec) -> aws.ec2.InstanceInstanceMarketOptionsArgs:
    """One-time, so that nothing comes back by itself; persistent only where a stop is wanted, which EC2 ties to it."""
    stops = spec.settings.get("spot_stops")
    options = aws.ec2.InstanceInstanceMarketOptionsSpotOptionsArgs(
        spot_instance_type="persistent" if stops else "one-time",
        instance_interruption_behavior="stop" if stops else "terminate",
    )
    return aws.ec2.InstanceInstanceMarketOptionsArgs(market_type="spot", spot_options=options)


def _shutdown_behavior(spec: ClusterSpec, slot: Slot) -> str:
    """What a machine that shuts itself down becomes: its own net for an autostop whose server is gone."""
    down = bool((spec.autostop or {}).get("down"))
    one_time = slot.spot and not spec.settings.get("spot_stops")
    return "terminate" if down or one_time else "stop"


def _reservation(spec: ClusterSpec) -> aws.ec2.InstanceCapacityReservationSpecificationArgs | None:
    reservation = spec.settings.get("capacity_reservation_id")
    if not reservation:
        return None
    target = aws.ec2.InstanceCapacityReservationSpecificationCapacityReservationTargetArgs(
        capacity_reservation_id=reservation
    )
    return aws.ec2.InstanceCapacityReservationSpecificationArgs(capacity_reservation_target=target)


def _user_data(spec: ClusterSpec) -> str | None:
    commands = spec.settings.get("post_provision_runcmd") or []
    if not commands:
        return None
    text = "\n".join(["#!/bin/sh", "set -e", *commands]) + "\n"
    if len(text.encode()) > MAX_USER_DATA_BYTES:
        raise ValueError(
            f"aws.post_provision_runcmd makes {len(text.encode())} bytes of user data; EC2 takes {MAX_USER_DATA_BYTES}"
        )
    return text
