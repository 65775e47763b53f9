"""Who gets in: key pairs, security groups and their rules."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from skyinfra.testing.aws.double.resource import Resource, one
from skyinfra.testing.aws.double.values import Properties, clean, tag_dict

__all__ = ["EgressRule", "IngressRule", "KeyPair", "SecurityGroup"]


class KeyPair(Resource):
    token = "aws:ec2/keyPair:KeyPair"
    label = "EC2 Key Pair"
    inputs = ("keyName", "keyNamePrefix", "publicKey")
    required = ("publicKey",)
    replace = frozenset(inputs)
    unread = frozenset({"publicKey", "keyNamePrefix"})
    unknown = ("arn", "fingerprint", "keyPairId", "keyType")
    auto = ("keyName", 255)

    def create(self, inputs: Properties, tags: dict[str, str]) -> str:
        self.ec2.import_key_pair(
            KeyName=inputs["keyName"],
            PublicKeyMaterial=inputs["publicKey"].encode(),
            TagSpecifications=self.tag_specifications("key-pair", tags),
        )
        return inputs["keyName"]

    def actual(self, identifier: str, known: Properties) -> Properties:
        key = one(self.ec2.describe_key_pairs(KeyNames=[identifier])["KeyPairs"])
        return {
            "keyName": key["KeyName"],
            "keyPairId": key.get("KeyPairId"),
            "fingerprint": key.get("KeyFingerprint"),
            "keyType": key.get("KeyType"),
            "arn": self.arn("ec2", f"key-pair/{identifier}"),
            "tags": tag_dict(key.get("Tags")),
        }

    def retag(self, identifier: str, old: dict[str, str], new: dict[str, str]) -> None:
        key = one(self.ec2.describe_key_pairs(KeyNames=[identifier])["KeyPairs"])
        super().retag(key["KeyPairId"], old, new)

    def delete(self, identifier: str, known: Properties) -> None:
        self.ec2.delete_key_pair(KeyName=identifier)


class SecurityGroup(Resource):
    """Rules are resources of their own here; those inside the group are refused."""

    token = "aws:ec2/securityGroup:SecurityGroup"
    label = "Security Group"
    inputs = ("description", "name", "namePrefix", "revokeRulesOnDelete", "vpcId")
    replace = frozenset({"description", "name", "namePrefix", "vpcId"})
    computed = frozenset({"vpcId"})
    unread = frozenset({"namePrefix", "revokeRulesOnDelete"})
    unknown = ("arn", "ownerId", "vpcId")
    auto = ("name", 255)
    defaults: ClassVar[Properties] = {"description": "Managed by Pulumi", "revokeRulesOnDelete": False}

    def check(self, inputs: Properties) -> Iterable[tuple[str, str]]:
        if str(inputs.get("name") or self.urn.rpartition("::")[2]).startswith("sg-"):
            yield "name", "invalid value for name (cannot begin with sg-)"

    def create(self, inputs: Properties, tags: dict[str, str]) -> str:
        wanted = {
            "GroupName": inputs["name"],
            "Description": inputs["description"],
            "VpcId": inputs.get("vpcId"),
            "TagSpecifications": self.tag_specifications("security-group", tags) or None,
        }
        identifier = self.ec2.create_security_group(**clean(wanted))["GroupId"]
        group = self.ec2.describe_security_groups(GroupIds=[identifier])["SecurityGroups"][0]
        if group["IpPermissionsEgress"]:  # the provider drops the default allow-all rule
            self.ec2.revoke_security_group_egress(GroupId=identifier, IpPermissions=group["IpPermissionsEgress"])
        return identifier

    def actual(self, identifier: str, known: Properties) -> Properties:
        group = one(self.ec2.describe_security_groups(GroupIds=[identifier])["SecurityGroups"])
        return {
            "name": group["GroupName"],
            "description": group["Description"],
            "vpcId": group.get("VpcId"),
            "ownerId": group["OwnerId"],
            "arn": self.arn("ec2", f"security-group/{identifier}"),
            "tags": tag_dict(group.get("Tags")),
        }

    def delete(self, identifier: str, known: Properties) -> None:
        self.ec2.delete_security_group(GroupId=identifier)


class IngressRule(Resource):
    token = "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule"
    label = "VPC Security Group Rule"
    direction = "ingress"
    inputs = (
        *("cidrIpv4", "cidrIpv6", "description", "fromPort", "ipProtocol", "prefixListId"),
        *("referencedSecurityGroupId", "securityGroupId", "toPort"),
    )
    required = ("ipProtocol", "securityGroupId")
    replace = frozenset({"securityGroupId"})
    unknown = ("arn", "securityGroupRuleId")

    def create(self, inputs: Properties, tags: dict[str, str]) -> str:
        permission = clean(
            {
                "IpProtocol": str(inputs["ipProtocol"]),
                "FromPort": inputs.get("fromPort"),
                "ToPort": inputs.get("toPort"),
            }
        )
        about = {"Description": inputs["description"]} if inputs.get("description") else {}
        for key, field, name in (
            ("cidrIpv4", "IpRanges", "CidrIp"),
            ("cidrIpv6", "Ipv6Ranges", "CidrIpv6"),
            ("prefixListId", "PrefixListIds", "PrefixListId"),
            ("referencedSecurityGroupId", "UserIdGroupPairs", "GroupId"),
        ):
            if inputs.get(key):
                permission[field] = [{name: inputs[key], **about}]
        authorize = getattr(self.ec2, f"authorize_security_group_{self.direction}")
        marks = {"TagSpecifications": self.tag_specifications("security-group-rule", tags)} if tags else {}
        made = authorize(GroupId=inputs["securityGroupId"], IpPermissions=[permission], **marks)
        return made["SecurityGroupRules"][0]["SecurityGroupRuleId"]

    def actual(self, identifier: str, known: Properties) -> Properties:
        found = self.ec2.describe_security_group_rules(SecurityGroupRuleIds=[identifier])["SecurityGroupRules"]
        rule = one(found)

        def port(value: int | None) -> int | None:
            return None if value in (None, -1) and str(rule["IpProtocol"]) == "-1" else value

        return {
            "securityGroupRuleId": identifier,
            "arn": self.arn("ec2", f"security-group-rule/{identifier}"),
            "securityGroupId": rule["GroupId"],
            "ipProtocol": rule["IpProtocol"],
            "fromPort": port(rule.get("FromPort")),
            "toPort": port(rule.get("ToPort")),
            "cidrIpv4": rule.get("CidrIpv4"),
            "cidrIpv6": rule.get("CidrIpv6"),
            "description": rule.get("Description") or None,
            "prefixListId": rule.get("PrefixListId"),
            "referencedSecurityGroupId": (rule.get("ReferencedGroupInfo") or {}).get("GroupId"),
            "tags": tag_dict(rule.get("Tags")),
        }

    def update(self, identifier: str, old: Properties, new: Properties, changed: set[str]) -> None:
        rule = {
            "IpProtocol": str(new["ipProtocol"]),
            "FromPort": new.get("fromPort", -1),
            "ToPort": new.get("toPort", -1),
            "CidrIpv4": new.get("cidrIpv4"),
            "CidrIpv6": new.get("cidrIpv6"),
            "PrefixListId": new.get("prefixListId"),
            "ReferencedGroupId": new.get("referencedSecurityGroupId"),
            "Description": new.get("description"),
        }
        self.ec2.modify_security_group_rules(
            GroupId=new["securityGroupId"],
            SecurityGroupRules=[{"SecurityGroupRuleId": identifier, "SecurityGroupRule": clean(rule)}],
        )

    def delete(self, identifier: str, known: Properties) -> None:
        revoke = getattr(self.ec2, f"revoke_security_group_{self.direction}")
        revoke(GroupId=known["securityGroupId"], SecurityGroupRuleIds=[identifier])


class EgressRule(IngressRule):
    token = "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule"
    direction = "egress"
