"""What AWS says when it does not do what was asked: code, HTTP status, words. The words are its own, recorded."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["REFUSALS", "Refusal"]


@dataclass(frozen=True)
class Refusal:
    code: str
    status: int
    message: str


REFUSALS: dict[str, Refusal] = {
    "capacity": Refusal(
        "InsufficientInstanceCapacity",
        500,
        "We currently do not have sufficient p4d.24xlarge capacity in the Availability Zone you requested "
        "(us-east-1a). Our system will be working on provisioning additional capacity. You can currently get "
        "p4d.24xlarge capacity by not specifying an Availability Zone in your request or choosing us-east-1b.",
    ),
    "no_such_type_here": Refusal(
        "Unsupported",
        400,
        "Your requested instance type (p5.48xlarge) is not supported in your requested Availability Zone "
        "(us-east-1e). Please retry your request by not specifying an Availability Zone or choosing us-east-1a.",
    ),
    "quota": Refusal(
        "VcpuLimitExceeded",
        400,
        "You have requested more vCPU capacity than your current vCPU limit of 0 allows for the instance bucket that "
        "the specified instance type belongs to. Please visit http://aws.amazon.com/contact-us/ec2-request to "
        "request an adjustment to this limit.",
    ),
    "spot_quota": Refusal("MaxSpotInstanceCountExceeded", 400, "Max spot instance count exceeded"),
    "spot_price": Refusal(
        "SpotMaxPriceTooLow",
        400,
        "Your Spot request price of 0.001 is lower than the minimum required Spot request fulfillment price of 0.0252.",
    ),
    "bad_credentials": Refusal("AuthFailure", 401, "AWS was not able to validate the provided access credentials"),
    "unknown_key": Refusal("InvalidClientTokenId", 403, "The security token included in the request is invalid."),
    "expired": Refusal("ExpiredToken", 403, "The security token included in the request is expired"),
    "permission": Refusal(
        "UnauthorizedOperation",
        403,
        "You are not authorized to perform this operation. User: arn:aws:iam::123456789012:user/ci is not authorized "
        "to perform: ec2:RunInstances on resource: arn:aws:ec2:us-east-1:123456789012:instance/* because no "
        "identity-based policy allows the ec2:RunInstances action. Encoded authorization failure message: 4MxZ1",
    ),
    "tag_policy": Refusal(
        "TagPolicyViolation",
        400,
        "The tag policy does not allow the specified value for the following tag key: 'skyinfra-server'.",
    ),
    "no_image": Refusal("InvalidAMIID.NotFound", 400, "The image id '[ami-0123456789abcdef0]' does not exist"),
    "no_key": Refusal("InvalidKeyPair.NotFound", 400, "The key pair 'mine' does not exist"),
    "throttled": Refusal("RequestLimitExceeded", 503, "Request limit exceeded."),
    "region_off": Refusal(
        "OptInRequired",
        401,
        "You are not subscribed to this service. Please go to http://aws.amazon.com to subscribe.",
    ),
    "verification": Refusal(
        "PendingVerification",
        400,
        "Your request for accessing resources in this region is being validated, and you will not be able to launch "
        "additional resources in this region until the validation is complete.",
    ),
}
