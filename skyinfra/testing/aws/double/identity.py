"""Placement groups; IAM roles, their policies and instance profiles."""

from __future__ import annotations

import json
from typing import Any, ClassVar

from skyinfra.testing.aws.double.resource import Resource, one
from skyinfra.testing.aws.double.values import Properties, clean, tag_dict, tag_list

__all__ = ["InstanceProfile", "PlacementGroup", "Role", "RolePolicy", "same_json"]


def same_json(first: Any, second: Any) -> bool:
    try:
        return json.loads(first) == json.loads(second)
    except (TypeError, ValueError):
        return first == second


class PlacementGroup(Resource):
    token = "aws:ec2/placementGroup:PlacementGroup"
    label = "EC2 Placement Group"
    inputs = ("name", "partitionCount", "spreadLevel", "strategy")
    required = ("strategy",)
    replace = frozenset(inputs)
    computed = frozenset({"partitionCount", "spreadLevel"})
    unknown = ("arn", "placementGroupId")
    auto = ("name", 255)

    def create(self, inputs: Properties, tags: dict[str, str]) -> str:
        marks = {"TagSpecifications": self.tag_specifications("placement-group", tags)} if tags else {}
        self.ec2.create_placement_group(GroupName=inputs["name"], Strategy=inputs["strategy"], **marks)
        return inputs["name"]

    def _find(self, identifier: str) -> Properties:
        return one(self.ec2.describe_placement_groups(GroupNames=[identifier])["PlacementGroups"])

    def actual(self, identifier: str, known: Properties) -> Properties:
        group = self._find(identifier)
        return {
            "name": group["GroupName"],
            "strategy": group["Strategy"],
            "placementGroupId": group["GroupId"],
            "arn": self.arn("ec2", f"placement-group/{identifier}"),
            "tags": tag_dict(group.get("Tags")),
        }

    def retag(self, identifier: str, old: dict[str, str], new: dict[str, str]) -> None:
        super().retag(self._find(identifier)["GroupId"], old, new)

    def delete(self, identifier: str, known: Properties) -> None:
        self.ec2.delete_placement_group(GroupName=identifier)


class _Iam(Resource):
    @property
    def iam(self) -> Any:
        return self.connection.client("iam")


class Role(_Iam):
    token = "aws:iam/role:Role"
    label = "IAM Role"
    inputs = (
        *("assumeRolePolicy", "description", "forceDetachPolicies", "managedPolicyArns", "maxSessionDuration"),
        *("name", "namePrefix", "path", "permissionsBoundary"),
    )
    required = ("assumeRolePolicy",)
    replace = frozenset({"name", "namePrefix", "path"})
    unread = frozenset({"namePrefix", "forceDetachPolicies", "managedPolicyArns"})
    unknown = ("arn", "uniqueId", "createDate")
    auto = ("name", 64)
    defaults: ClassVar[Properties] = {"path": "/", "maxSessionDuration": 3600, "forceDetachPolicies": False}

    def create(self, inputs: Properties, tags: dict[str, str]) -> str:
        wanted = {
            "RoleName": inputs["name"],
            "Path": inputs["path"],
            "AssumeRolePolicyDocument": inputs["assumeRolePolicy"],
            "Description": inputs.get("description"),
            "MaxSessionDuration": inputs["maxSessionDuration"],
            "PermissionsBoundary": inputs.get("permissionsBoundary"),
            "Tags": tag_list(tags),
        }
        self.iam.create_role(**clean(wanted))
        for arn in inputs.get("managedPolicyArns") or []:
            self.iam.attach_role_policy(RoleName=inputs["name"], PolicyArn=arn)
        return inputs["name"]

    def actual(self, identifier: str, known: Properties) -> Properties:
        role = self.iam.get_role(RoleName=identifier)["Role"]
        document = json.dumps(role["AssumeRolePolicyDocument"])
        same = same_json(document, known.get("assumeRolePolicy"))
        return {
            "name": identifier,
            "arn": role["Arn"],
            "path": role["Path"],
            "uniqueId": role["RoleId"],
            "createDate": role["CreateDate"].isoformat(),
            "assumeRolePolicy": known["assumeRolePolicy"] if same else document,
            "description": role.get("Description") or None,
            "maxSessionDuration": role.get("MaxSessionDuration", 3600),
            "permissionsBoundary": (role.get("PermissionsBoundary") or {}).get("PermissionsBoundaryArn"),
            "tags": tag_dict(role.get("Tags")),
        }

    def retag(self, identifier: str, old: dict[str, str], new: dict[str, str]) -> None:
        if gone := [key for key in old if key not in new]:
            self.iam.untag_role(RoleName=identifier, TagKeys=gone)
        if new:
            self.iam.tag_role(RoleName=identifier, Tags=tag_list(new))

    def update(self, identifier: str, old: Properties, new: Properties, changed: set[str]) -> None:
        if "assumeRolePolicy" in changed:
            self.iam.update_assume_role_policy(RoleName=identifier, PolicyDocument=new["assumeRolePolicy"])
        before, after = set(old.get("managedPolicyArns") or []), set(new.get("managedPolicyArns") or [])
        for arn in after - before:
            self.iam.attach_role_policy(RoleName=identifier, PolicyArn=arn)
        for arn in before - after:
            self.iam.detach_role_policy(RoleName=identifier, PolicyArn=arn)

    def delete(self, identifier: str, known: Properties) -> None:
        for arn in known.get("managedPolicyArns") or []:
            self.iam.detach_role_policy(RoleName=identifier, PolicyArn=arn)
        self.iam.delete_role(RoleName=identifier)


class RolePolicy(_Iam):
    token = "aws:iam/rolePolicy:RolePolicy"
    label = "IAM Role Policy"
    inputs = ("name", "namePrefix", "policy", "role")
    required = ("policy", "role")
    replace = frozenset({"name", "namePrefix", "role"})
    unread = frozenset({"namePrefix"})
    auto = ("name", 128)
    tagged = False

    def create(self, inputs: Properties, tags: dict[str, str]) -> str:
        self.update("", {}, inputs, {"policy"})
        return f"{inputs['role']}:{inputs['name']}"

    def actual(self, identifier: str, known: Properties) -> Properties:
        role, _, name = identifier.partition(":")
        document = json.dumps(self.iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"])
        same = same_json(document, known.get("policy"))
        return {"role": role, "name": name, "policy": known["policy"] if same else document}

    def update(self, identifier: str, old: Properties, new: Properties, changed: set[str]) -> None:
        self.iam.put_role_policy(RoleName=new["role"], PolicyName=new["name"], PolicyDocument=new["policy"])

    def delete(self, identifier: str, known: Properties) -> None:
        role, _, name = identifier.partition(":")
        self.iam.delete_role_policy(RoleName=role, PolicyName=name)


class InstanceProfile(_Iam):
    token = "aws:iam/instanceProfile:InstanceProfile"
    label = "IAM Instance Profile"
    inputs = ("name", "namePrefix", "path", "role")
    replace = frozenset({"name", "namePrefix", "path"})
    unread = frozenset({"namePrefix"})
    unknown = ("arn", "uniqueId", "createDate")
    auto = ("name", 128)
    defaults: ClassVar[Properties] = {"path": "/"}

    def create(self, inputs: Properties, tags: dict[str, str]) -> str:
        marks = tag_list(tags)
        self.iam.create_instance_profile(InstanceProfileName=inputs["name"], Path=inputs["path"], Tags=marks)
        self.update(inputs["name"], {}, inputs, {"role"})
        return inputs["name"]

    def actual(self, identifier: str, known: Properties) -> Properties:
        profile = self.iam.get_instance_profile(InstanceProfileName=identifier)["InstanceProfile"]
        return {
            "name": identifier,
            "arn": profile["Arn"],
            "path": profile["Path"],
            "uniqueId": profile["InstanceProfileId"],
            "createDate": profile["CreateDate"].isoformat(),
            "role": profile["Roles"][0]["RoleName"] if profile["Roles"] else None,
            "tags": tag_dict(profile.get("Tags")),
        }

    def retag(self, identifier: str, old: dict[str, str], new: dict[str, str]) -> None:
        if gone := [key for key in old if key not in new]:
            self.iam.untag_instance_profile(InstanceProfileName=identifier, TagKeys=gone)
        if new:
            self.iam.tag_instance_profile(InstanceProfileName=identifier, Tags=tag_list(new))

    def update(self, identifier: str, old: Properties, new: Properties, changed: set[str]) -> None:
        if old.get("role"):
            self.iam.remove_role_from_instance_profile(InstanceProfileName=identifier, RoleName=old["role"])
        if new.get("role"):
            self.iam.add_role_to_instance_profile(InstanceProfileName=identifier, RoleName=new["role"])

    def delete(self, identifier: str, known: Properties) -> None:
        self.update(identifier, known, {}, {"role"})
        self.iam.delete_instance_profile(InstanceProfileName=identifier)
