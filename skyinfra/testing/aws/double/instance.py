"""EC2 instances, and their power (`InstanceState`)."""

from __future__ import annotations

import base64
import time
from typing import Any, ClassVar

from skyinfra.testing.aws.double.connection import InitFailed, NotFound
from skyinfra.testing.aws.double.instance_request import launch_request
from skyinfra.testing.aws.double.resource import Resource, one
from skyinfra.testing.aws.double.values import Properties, camel, clean, pascal, tag_dict, words

__all__ = ["Instance", "InstanceState"]

POLL_S = 0.05
WAIT_S = 600.0
_ON_STOPPED = frozenset({"userData", "userDataBase64", "instanceType", "cpuOptions", "ebsOptimized"})


def find(ec2: Any, identifier: str) -> Properties:
    """The instance as EC2 shows it; a terminated one is `NotFound`."""
    instance = one(one(ec2.describe_instances(InstanceIds=[identifier])["Reservations"])["Instances"])
    if instance["State"]["Name"] == "terminated":
        raise NotFound
    return instance


def wait(ec2: Any, identifier: str, wanted: str, doing: str) -> None:
    """Until it is in this state. A created one that dies instead is an error, as in the provider."""
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            state = find(ec2, identifier)["State"]["Name"]
        except NotFound:
            if wanted == "terminated":
                return
            raise RuntimeError(
                f"waiting for EC2 Instance ({identifier}) {doing}: unexpected state 'terminated', "
                f"wanted target '{wanted}'. last error: {_why_it_ended(ec2, identifier)}"
            ) from None
        if state == wanted:
            return
        if time.monotonic() > deadline:
            raise InitFailed(identifier, f"timeout while waiting for EC2 Instance ({identifier}) to become {wanted}")
        time.sleep(POLL_S)


def _why_it_ended(ec2: Any, identifier: str) -> str:
    instance = ec2.describe_instances(InstanceIds=[identifier])["Reservations"][0]["Instances"][0]
    reason = instance.get("StateReason", {})
    return f"{reason.get('Code')}: {reason.get('Message')}"


class Instance(Resource):
    token = "aws:ec2/instance:Instance"
    label = "EC2 Instance"
    inputs = words(
        "ami associatePublicIpAddress availabilityZone capacityReservationSpecification cpuOptions "
        "disableApiStop disableApiTermination ebsOptimized forceDestroy getPasswordData iamInstanceProfile "
        "instanceInitiatedShutdownBehavior instanceMarketOptions instanceType keyName metadataOptions "
        "monitoring placementGroup privateIp rootBlockDevice sourceDestCheck subnetId tenancy userData "
        "userDataBase64 userDataReplaceOnChange volumeTags vpcSecurityGroupIds"
    )
    replace = frozenset(
        words(
            "ami associatePublicIpAddress availabilityZone cpuOptions instanceMarketOptions keyName placementGroup "
            "privateIp subnetId tenancy"
        )
    )
    computed = frozenset(
        words(
            "ami associatePublicIpAddress availabilityZone capacityReservationSpecification cpuOptions "
            "disableApiStop disableApiTermination ebsOptimized iamInstanceProfile "
            "instanceInitiatedShutdownBehavior instanceMarketOptions instanceType keyName metadataOptions "
            "monitoring placementGroup privateIp rootBlockDevice subnetId tenancy userData userDataBase64 "
            "vpcSecurityGroupIds"
        )
    )
    unread = frozenset(
        words(
            "associatePublicIpAddress capacityReservationSpecification cpuOptions disableApiStop "
            "disableApiTermination ebsOptimized instanceInitiatedShutdownBehavior monitoring placementGroup "
            "sourceDestCheck tenancy volumeTags"
        )
    )
    unknown = words(
        "arn instanceState publicIp privateIp publicDns privateDns availabilityZone subnetId "
        "primaryNetworkInterfaceId vpcSecurityGroupIds"
    )
    defaults: ClassVar[Properties] = {
        "sourceDestCheck": True,
        "getPasswordData": False,
        "userDataReplaceOnChange": False,
        "forceDestroy": False,
    }

    def must_replace(self, key: str, old: Properties, new: Properties) -> bool:
        if key in ("userData", "userDataBase64"):
            return bool(new.get("userDataReplaceOnChange"))
        if key == "rootBlockDevice":
            before, after = old.get(key) or {}, new.get(key) or {}
            return any(name in after and before.get(name) != after[name] for name in ("encrypted", "kmsKeyId"))
        return key in self.replace

    def create(self, inputs: Properties, tags: dict[str, str]) -> str:
        request = launch_request(self, inputs, tags)
        identifier = self.ec2.run_instances(MinCount=1, MaxCount=1, **request)["Instances"][0]["InstanceId"]
        try:
            wait(self.ec2, identifier, "running", "create")
            if inputs.get("sourceDestCheck") is False:
                self.ec2.modify_instance_attribute(InstanceId=identifier, SourceDestCheck={"Value": False})
        except InitFailed:
            raise
        except Exception as exc:  # it exists: the state must know it, whatever went wrong
            raise InitFailed(identifier, str(exc)) from exc
        return identifier

    def actual(self, identifier: str, known: Properties) -> Properties:
        instance = find(self.ec2, identifier)
        found = {
            "arn": self.arn("ec2", f"instance/{identifier}"),
            "ami": instance.get("ImageId"),
            "instanceType": instance["InstanceType"],
            "instanceState": instance["State"]["Name"],
            "availabilityZone": instance["Placement"].get("AvailabilityZone"),
            "keyName": instance.get("KeyName"),
            "subnetId": instance.get("SubnetId"),
            "privateIp": instance.get("PrivateIpAddress"),
            "privateDns": instance.get("PrivateDnsName"),
            "publicIp": instance.get("PublicIpAddress") or "",
            "publicDns": instance.get("PublicDnsName") or "",
            "instanceLifecycle": instance.get("InstanceLifecycle"),
            "iamInstanceProfile": _profile(instance, known),
            "tags": tag_dict(instance.get("Tags")),
        }
        interfaces = instance.get("NetworkInterfaces") or []
        if interfaces:
            found["primaryNetworkInterfaceId"] = interfaces[0]["NetworkInterfaceId"]
            groups = interfaces[0].get("Groups") or instance.get("SecurityGroups") or []
            found["vpcSecurityGroupIds"] = _in_order_of(known, [group["GroupId"] for group in groups])
        if instance.get("MetadataOptions"):
            options = {key: value for key, value in instance["MetadataOptions"].items() if key != "State"}
            found["metadataOptions"] = camel(options)
        if known.get("instanceMarketOptions") and instance.get("InstanceLifecycle") == "spot":
            found["instanceMarketOptions"] = known["instanceMarketOptions"]  # moto does not give them back
        return {**found, **self._disk(instance), **self._user_data(identifier, known)}

    def _disk(self, instance: Properties) -> Properties:
        devices = instance.get("BlockDeviceMappings") or []
        for device in devices:
            if device["DeviceName"] != instance.get("RootDeviceName") and len(devices) > 1:
                continue
            volume = one(self.ec2.describe_volumes(VolumeIds=[device["Ebs"]["VolumeId"]])["Volumes"])
            disk = {
                "deviceName": device["DeviceName"],
                "volumeId": volume["VolumeId"],
                "volumeSize": volume["Size"],
                "volumeType": volume["VolumeType"],
                "iops": volume.get("Iops"),
                "throughput": volume.get("Throughput"),
                "encrypted": volume["Encrypted"],
                "deleteOnTermination": device["Ebs"].get("DeleteOnTermination"),
                "tags": tag_dict(volume.get("Tags")),
            }
            return {"rootBlockDevice": clean(disk)}
        return {}

    def _user_data(self, identifier: str, known: Properties) -> Properties:
        for key in ("userData", "userDataBase64"):
            if key in known:
                got = self.ec2.describe_instance_attribute(InstanceId=identifier, Attribute="userData")
                text = got.get("UserData", {}).get("Value")
                if text:
                    decoded = base64.b64decode(text).decode("utf8", "replace")
                    return {key: text if key == "userDataBase64" else decoded}
        return {}

    def update(self, identifier: str, old: Properties, new: Properties, changed: set[str]) -> None:
        def modify(**attribute: Any) -> None:
            self.ec2.modify_instance_attribute(InstanceId=identifier, **attribute)

        if changed & _ON_STOPPED:
            self._update_stopped(identifier, new, changed & _ON_STOPPED, modify)
        if "vpcSecurityGroupIds" in changed:
            modify(Groups=new["vpcSecurityGroupIds"])
        if "sourceDestCheck" in changed:
            modify(SourceDestCheck={"Value": new["sourceDestCheck"]})
        if "disableApiTermination" in changed:
            modify(DisableApiTermination={"Value": new["disableApiTermination"]})
        if "instanceInitiatedShutdownBehavior" in changed:
            modify(InstanceInitiatedShutdownBehavior={"Value": new["instanceInitiatedShutdownBehavior"]})
        if "metadataOptions" in changed:
            self.ec2.modify_instance_metadata_options(InstanceId=identifier, **pascal(new["metadataOptions"]))
        if "rootBlockDevice" in changed:
            disk = new["rootBlockDevice"]
            wanted = {key: disk.get(key) for key in ("iops", "throughput", "volumeType")}
            self.ec2.modify_volume(
                VolumeId=old["rootBlockDevice"]["volumeId"],
                Size=disk["volumeSize"],
                **{key.removeprefix("volume").capitalize(): value for key, value in clean(wanted).items()},
            )
        if "iamInstanceProfile" in changed:
            self._change_profile(identifier, new.get("iamInstanceProfile"))

    def _update_stopped(self, identifier: str, new: Properties, changed: set[str], modify: Any) -> None:
        running = find(self.ec2, identifier)["State"]["Name"] == "running"
        if running:
            self.ec2.stop_instances(InstanceIds=[identifier])
            wait(self.ec2, identifier, "stopped", "stop")
        if "instanceType" in changed:
            modify(InstanceType={"Value": new["instanceType"]})
        if changed & {"userData", "userDataBase64"}:
            text = new.get("userData")
            modify(UserData={"Value": text.encode() if text else base64.b64decode(new.get("userDataBase64") or "")})
        if running:
            self.ec2.start_instances(InstanceIds=[identifier])
            wait(self.ec2, identifier, "running", "start")

    def _change_profile(self, identifier: str, profile: str | None) -> None:
        mine = [{"Name": "instance-id", "Values": [identifier]}]
        found = self.ec2.describe_iam_instance_profile_associations(Filters=mine)
        for association in found["IamInstanceProfileAssociations"]:
            self.ec2.disassociate_iam_instance_profile(AssociationId=association["AssociationId"])
        if profile:
            named = {"Arn" if profile.startswith("arn:") else "Name": profile}
            self.ec2.associate_iam_instance_profile(InstanceId=identifier, IamInstanceProfile=named)

    def delete(self, identifier: str, known: Properties) -> None:
        self.ec2.terminate_instances(InstanceIds=[identifier])
        wait(self.ec2, identifier, "terminated", "delete")


def _profile(instance: Properties, known: Properties) -> str | None:
    arn = (instance.get("IamInstanceProfile") or {}).get("Arn", "")
    by_arn = str(known.get("iamInstanceProfile") or "").startswith("arn:")
    return (arn if by_arn else arn.rpartition("/")[2]) or None


def _in_order_of(known: Properties, groups: list[str]) -> list[str]:
    wanted = known.get("vpcSecurityGroupIds")
    return wanted if wanted and sorted(wanted) == sorted(groups) else groups


class InstanceState(Resource):
    token = "aws:ec2transitgateway/instanceState:InstanceState"
    label = "EC2 Instance State"
    inputs = ("force", "instanceId", "state")
    required = ("instanceId", "state")
    replace = frozenset({"instanceId"})
    unread = frozenset({"force"})
    defaults: ClassVar[Properties] = {"force": False}
    tagged = False

    def create(self, inputs: Properties, tags: dict[str, str]) -> str:
        self.update(inputs["instanceId"], {}, inputs, {"state"})
        return inputs["instanceId"]

    def actual(self, identifier: str, known: Properties) -> Properties:
        return {"instanceId": identifier, "state": find(self.ec2, identifier)["State"]["Name"]}

    def update(self, identifier: str, old: Properties, new: Properties, changed: set[str]) -> None:
        if new["state"] == find(self.ec2, identifier)["State"]["Name"]:
            return
        if new["state"] == "stopped":
            self.ec2.stop_instances(InstanceIds=[identifier], Force=bool(new.get("force")))
        else:
            self.ec2.start_instances(InstanceIds=[identifier])
        wait(self.ec2, identifier, new["state"], new["state"])

    def delete(self, identifier: str, known: Properties) -> None:
        """The instance stays as it is."""
