"""What is asked of an account before anything is made: rights, images, zones, networks; refusals are one line."""

import dataclasses
import stat

import pytest

from skyinfra.model.home import Home
from skyinfra.model.spec import ClusterSpec, Slot
from skyinfra.stacks.clouds.aws import keys
from skyinfra.stacks.clouds.aws.cloud import AwsCloud
from skyinfra.stacks.clouds.failures import CloudError
from skyinfra.testing.aws.bed import AwsBed

AMI = "ami-1e749f67"


@pytest.fixture(scope="module")
def account(tmp_path_factory):
    bed = AwsBed(tmp_path_factory.mktemp("aws"))
    yield bed
    bed.close()


@pytest.fixture
def bed(account, monkeypatch):
    account.reset()
    for name, value in account.env.items():
        monkeypatch.setenv(name, value)
    return account


@pytest.fixture
def cloud(bed, tmp_path):
    return AwsCloud(Home(tmp_path / "home"))


def spec(**slot) -> ClusterSpec:
    slots = (Slot(0, **{"instance_type": "m6i.large", **slot}),)
    return ClusterSpec("s", "default", "me", "c", "c-1", "aws", slots, region="us-east-1")


def refused(cloud: AwsCloud, wanted: dict | None = None, config: dict | None = None) -> CloudError:
    with pytest.raises(CloudError) as caught:
        cloud.resolve(spec(), wanted or {}, config or {})
    assert "\n" not in caught.value.words
    return caught.value


# check ------------------------------------------------------------------------------------------------------------


def test_a_good_account_is_told_by_its_number_and_remembered(cloud):
    untried = cloud.standing()
    assert (untried.enabled, "skyinfra check aws" in untried.reason) == (False, True)
    found = cloud.check()
    assert (found.enabled, found.details["account"], found.details["missing"]) == (True, "123456789012", [])
    assert "123456789012" in cloud.standing().reason


def test_missing_rights_are_named_one_by_one(cloud, bed):
    bed.rule(*(bed.refuse("permission", action=action) for action in ("RunInstances", "DescribeKeyPairs")))
    found = cloud.check()
    assert not found.enabled
    assert found.details["missing"] == ["ec2:DescribeKeyPairs", "ec2:RunInstances"]
    assert "ec2:DescribeKeyPairs, ec2:RunInstances" in found.reason


@pytest.mark.parametrize("refusal", ["expired", "unknown_key", "bad_credentials"])
def test_bad_credentials_are_told_in_awss_own_words(cloud, bed, refusal):
    told = bed.refuse(refusal, action=None)
    bed.rule(told)
    found = cloud.check()
    assert (found.enabled, told.message in found.reason) == (False, True)
    with pytest.raises(CloudError) as caught:
        cloud.observe("c-1", ("us-east-1",))
    assert caught.value.kind == "credentials"


def test_without_credentials_it_says_what_to_do(cloud, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    found = cloud.standing()
    assert (found.enabled, "aws configure" in found.reason) == (False, True)
    assert not cloud.check().enabled


def test_an_aws_that_does_not_answer_is_not_an_empty_one(cloud, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(CloudError, match="does not answer") as caught:
        cloud.observe("c-1", ("us-east-1",))
    assert caught.value.kind == "transient"


# resolve ----------------------------------------------------------------------------------------------------------


def test_an_image_is_chosen_once_and_pinned(cloud):
    found = cloud.resolve(spec(), {}, {})
    assert found.slots[0].image == AMI
    assert found.public_key.startswith("ssh-ed25519 ")
    assert cloud.resolve(found, {"image_id": {None: AMI}}, {}).slots[0].image == AMI


def test_zone_ids_become_this_accounts_names(cloud):
    found = cloud.resolve(dataclasses.replace(spec(), zones=("use1-az6",)), {}, {})
    assert [zone[:-1] for zone in found.zones] == ["us-east-1"]
    with pytest.raises(CloudError) as caught:
        cloud.resolve(dataclasses.replace(spec(), zones=("use1-az99",)), {}, {})
    assert caught.value.kind == "capacity"  # another place may do


def test_a_network_by_name_is_pinned_by_id_one_public_subnet_per_zone(cloud, bed):
    ec2 = bed.client()
    vpc = ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    ec2.create_tags(Resources=[vpc], Tags=[{"Key": "Name", "Value": "lab"}])
    inside = ec2.create_subnet(VpcId=vpc, CidrBlock="10.9.1.0/24", AvailabilityZone="us-east-1a")["Subnet"]["SubnetId"]
    error = refused(cloud, config={"vpc_name": "lab"})
    assert (error.kind, "aws.use_internal_ips" in error.words) == ("user", True)
    internal = cloud.resolve(spec(), {}, {"vpc_name": "lab", "use_internal_ips": True}).settings
    assert (internal["vpc_id"], internal["subnets"]) == (vpc, {"us-east-1a": inside})

    gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
    table = ec2.describe_route_tables(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["RouteTables"][0]["RouteTableId"]
    ec2.create_route(RouteTableId=table, DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway)
    assert cloud.resolve(spec(), {}, {"vpc_name": "lab"}).settings["subnets"] == {"us-east-1a": inside}


@pytest.mark.parametrize(
    ("wanted", "config", "words"),
    [
        ({"image_id": "ami-00000000000000000"}, {}, "ami-00000000000000000"),
        ({"image_id": "ubuntu"}, {}, "is no AMI"),
        ({"image_id": "docker:x"}, {}, "docker:x"),
        ({"disk_tier": "huge"}, {}, "disk_tier: huge"),
        ({"network_tier": "best"}, {}, "network_tier: best"),
        ({}, {"vpc_name": "nowhere"}, "no VPC named nowhere in us-east-1"),
        ({}, {"security_group_name": "nobody"}, "no group nobody"),
        ({}, {"use_ssm": True}, "aws.use_ssm"),
    ],
)
def test_a_wrong_name_is_one_line_that_says_which_setting(cloud, wanted, config, words):
    error = refused(cloud, wanted, config)
    assert (error.kind, words in error.words) == ("user", True), error.words


def test_a_region_that_is_not_switched_on_is_another_places_turn(cloud, bed):
    bed.rule(bed.refuse("region_off", action=None))
    with pytest.raises(CloudError) as caught:
        cloud.resolve(spec(), {"image_id": AMI}, {})
    assert caught.value.kind == "quota"


# the login key ----------------------------------------------------------------------------------------------------


def test_the_login_key_is_made_once_and_is_ours_alone(tmp_path):
    home = Home(tmp_path)
    first = keys.public_key(home)
    assert keys.public_key(home) == first
    assert stat.S_IMODE(keys.private_key_file(home).stat().st_mode) == 0o600
    assert "PRIVATE" not in first
