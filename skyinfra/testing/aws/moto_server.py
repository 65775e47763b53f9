"""moto's server with the few things that the tests need and moto lacks.

``python -m skyinfra.testing.aws.moto_server PORT_FILE``. Loopback unless ``MOTO_HOST`` says otherwise; public addresses
come from ``PUBLIC_POOL`` (a network such as ``198.18.0.0/16``) when it is set.
"""

from __future__ import annotations

import base64
import ipaddress
import itertools
import os
import sys
import threading
import uuid
from typing import Any

from moto.core.responses import ActionResult
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models import elastic_ip_addresses, elastic_network_interfaces
from moto.ec2.models.instances import InstanceBackend
from moto.ec2.responses import EC2Response
from moto.ec2.responses import instances as instance_responses
from moto.server import ThreadedMotoServer
from moto.ssm.models import Parameter, ParameterDict

from skyinfra.testing.aws.lifetime import end_with_parent, tell_port

__all__ = ["main"]

#: Public parameters that name images (Canonical's and the deep learning ones), and the image of moto's that stands in.
IMAGES = {
    "/aws/service/canonical/": "ami-1e749f67",
    "/aws/service/deeplearning/": "ami-1e749f67",
}
#: Of EC2 itself; moto records none.
MAX_USER_DATA_BYTES = 16 * 1024


def main() -> None:
    end_with_parent()
    _add_placement_groups()
    _mend_user_data()
    _mend_groups_of_interfaces()
    _add_image_parameters()
    if pool := os.environ.get("PUBLIC_POOL"):
        _use_public_pool(pool)
    server = ThreadedMotoServer(os.environ.get("MOTO_HOST", "127.0.0.1"), 0)
    server.start()
    tell_port(sys.argv[1], server.get_host_and_port()[1])
    threading.Event().wait()


def _add_placement_groups() -> None:
    """moto answers 500."""
    groups: dict[str, dict[str, Any]] = {}

    def create_placement_group(self: Any) -> ActionResult:
        name = self._get_param("GroupName")
        marks = self._get_param("TagSpecifications", []) or self._get_param("TagSpecification", [])
        tags = [tag for mark in marks for tag in (mark.get("Tags") or mark.get("Tag") or [])]
        groups[name] = {
            "GroupName": name,
            "Strategy": self._get_param("Strategy", "cluster"),
            "State": "available",
            "GroupId": f"pg-{uuid.uuid4().hex[:17]}",
            "Tags": tags,
        }
        return ActionResult({"PlacementGroup": groups[name]})

    def describe_placement_groups(self: Any) -> ActionResult:
        wanted = self._get_param("GroupNames", []) or self._get_param("GroupName", [])
        for name in wanted:
            if name not in groups:
                raise EC2ClientError("InvalidPlacementGroup.Unknown", f"The Placement Group '{name}' is unknown.")
        found = [group for name, group in groups.items() if not wanted or name in wanted]
        for asked in self._get_param("Filters", []):
            key, values = asked["Name"].removeprefix("tag:"), asked["Values"]
            found = [one for one in found if any(tag["Key"] == key and tag["Value"] in values for tag in one["Tags"])]
        return ActionResult({"PlacementGroups": found})

    def delete_placement_group(self: Any) -> ActionResult:
        groups.pop(self._get_param("GroupName"), None)
        return ActionResult({})

    for method in (create_placement_group, describe_placement_groups, delete_placement_group):
        setattr(EC2Response, method.__name__, method)


def _mend_user_data() -> None:
    """moto decodes the user data of ModifyInstanceAttribute twice, and has no limit on its size."""
    module: Any = instance_responses
    original: Any = module.parse_user_data

    def parse_user_data(value: Any) -> Any:
        if isinstance(value, bytes):
            try:
                parsed = original(value)
            except EC2ClientError:
                parsed = original(base64.b64encode(value))
        else:
            parsed = original(value)
        if parsed is not None and len(parsed) > MAX_USER_DATA_BYTES:
            raise EC2ClientError("InvalidParameterValue", "User data is limited to 16384 bytes")
        return parsed

    module.parse_user_data = parse_user_data


def _mend_groups_of_interfaces() -> None:
    """The groups given on the network interface are the groups of the instance."""
    original = InstanceBackend.run_instances

    def run_instances(self: Any, *args: Any, **kwargs: Any) -> Any:
        reservation = original(self, *args, **kwargs)
        for instance in reservation.instances:
            if not instance.security_groups and 0 in instance.nics:
                instance.security_groups = list(instance.nics[0].group_set)
        return reservation

    InstanceBackend.run_instances = run_instances  # type: ignore[method-assign]


def _add_image_parameters() -> None:
    original = ParameterDict._check_loading_status

    def _check_loading_status(self: Any, key: str) -> None:
        original(self, key)
        image = next((image for prefix, image in IMAGES.items() if str(key).startswith(prefix)), None)
        if image is not None and not dict.__contains__(self, key):
            dict.__setitem__(self, key, [_parameter(self, key, image)])

    ParameterDict._check_loading_status = _check_loading_status  # type: ignore[method-assign]


def _parameter(owner: Any, name: str, value: str) -> Any:
    return Parameter(
        account_id=owner.account_id,
        name=name,
        value=value,
        parameter_type="String",
        description=None,
        allowed_pattern=None,
        keyid=None,
        last_modified_date=1_700_000_000,
        version=1,
        data_type="text",
    )


def _use_public_pool(pool: str) -> None:
    network = ipaddress.ip_network(pool)
    numbers = itertools.count(10)

    def next_address() -> str:
        return str(network[next(numbers)])

    interfaces: Any = elastic_network_interfaces
    addresses: Any = elastic_ip_addresses
    interfaces.random_public_ip = next_address
    addresses.random_ip = next_address


if __name__ == "__main__":
    main()
