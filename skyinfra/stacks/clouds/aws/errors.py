"""What AWS and its provider say -> (failure kind, where, the provider's words). Pinned by recorded texts in the tests.

The provider's sentences end in ``api error CODE: MESSAGE``; the code decides, never the HTTP status or an exception's
class. A code that is not here is nobody's: the caller then asks the engine's own patterns.
"""

from __future__ import annotations

import re

from skyinfra.stacks.clouds.failures import parse
from skyinfra.stacks.operation import FailureKind

__all__ = ["classify", "classify_code", "zones_in"]

_CODES: dict[FailureKind, tuple[str, ...]] = {
    "capacity": (
        *("InsufficientInstanceCapacity", "InsufficientHostCapacity", "InsufficientReservedInstanceCapacity"),
        *("InsufficientCapacity", "InsufficientCapacityOnHost", "InsufficientAddressCapacity", "Unsupported"),
        *("InsufficientFreeAddressesInSubnet", "ReservationCapacityExceeded", "UnfulfillableCapacity"),
        *("Server.InsufficientInstanceCapacity", "InstanceTypeNotSupported", "UnsupportedOperation"),
    ),
    "quota": (
        *("VcpuLimitExceeded", "InstanceLimitExceeded", "MaxSpotInstanceCountExceeded", "VolumeLimitExceeded"),
        *("SpotInstanceCountLimitExceeded", "SecurityGroupLimitExceeded", "AddressLimitExceeded"),
        *("ResourceLimitExceeded", "SecurityGroupsPerInterfaceLimitExceeded", "RulesPerSecurityGroupLimitExceeded"),
        *("PendingVerification", "OptInRequired", "ServiceQuotaExceededException"),
    ),
    "spot_price": ("SpotMaxPriceTooLow", "InvalidSpotPrice", "BidPriceTooLow"),
    "credentials": (
        *("AuthFailure", "InvalidClientTokenId", "ExpiredToken", "ExpiredTokenException", "RequestExpired"),
        *("SignatureDoesNotMatch", "UnrecognizedClientException", "InvalidAccessKeyId", "MissingAuthenticationToken"),
        *("IncompleteSignature", "InvalidSignatureException", "Blocked", "AuthorizationHeaderMalformed"),
    ),
    "permission": (
        *("UnauthorizedOperation", "AccessDenied", "AccessDeniedException", "TagPolicyViolation"),
        *("DryRunOperationNotAllowed",),
    ),
    "throttled": (
        *(
            "RequestLimitExceeded",
            "Throttling",
            "ThrottlingException",
            "ThrottledException",
            "TooManyRequestsException",
        ),
        *("EC2ThrottledException", "BandwidthLimitExceeded", "RequestThrottled", "SlowDown"),
    ),
    "transient": ("InternalError", "InternalFailure", "ServiceUnavailable", "Unavailable", "RequestTimeout"),
    "user": (
        *("InvalidAMIID.NotFound", "InvalidAMIID.Malformed", "InvalidAMIID.Unavailable", "InvalidKeyPair.NotFound"),
        *("InvalidKeyPair.Duplicate", "InvalidGroup.NotFound", "InvalidGroupId.Malformed", "InvalidGroup.InUse"),
        *("InvalidSubnetID.NotFound", "InvalidVpcID.NotFound", "VPCIdNotSpecified", "MissingInput"),
        *("InvalidParameterValue", "InvalidParameterCombination", "InvalidParameter", "MissingParameter"),
        *("InvalidBlockDeviceMapping", "InvalidUserData.Malformed", "InvalidInput", "ParameterNotFound"),
        *("InvalidPlacementGroup.Unknown", "InvalidCapacityReservationId.NotFound", "UnknownParameter"),
        *("InvalidKey.Format", "InvalidPermission.Malformed", "InvalidZone.NotFound"),
    ),
}
_KIND_OF: dict[str, FailureKind] = {code: kind for kind, codes in _CODES.items() for code in codes}

#: Which of several errors of one update says what it was about: what needs the user before what needs another place.
_WEIGHT: tuple[FailureKind, ...] = (
    *("credentials", "permission", "user", "quota", "spot_price", "capacity", "throttled", "transient"),
)
_SAID = re.compile(r"api error (?P<code>[\w.]+): (?P<message>[^\n]*)")
_ENDED = re.compile(r"unexpected state 'terminated'.*?last error: (?P<code>[\w.]+): (?P<message>[^\n]*)")
_ZONE = re.compile(r"\b([a-z]{2}(?:-[a-z]+)+-\d[a-z])\b")
_ENCODED = re.compile(r" Encoded authorization failure message: \S+")
_NO_KEYS = re.compile(
    r"no valid credential sources[^\n]*|failed to refresh cached credentials[^\n]*|No AWS credentials found[^\n]*|"
    r"unable to locate credentials[^\n]*|failed to get shared config profile[^\n]*",
    re.IGNORECASE,
)
_UNREACHED = re.compile(
    r"(dial tcp[^\n]*|no such host[^\n]*|Could not connect to the endpoint URL[^\n]*|connection refused[^\n]*)"
)


def classify_code(code: str) -> FailureKind | None:
    """The kind of an API error code; None for one that nobody recorded."""
    return _KIND_OF.get(code)


def classify(diagnostics: str) -> tuple[str, str, str] | None:
    """None when nothing in the text is from this cloud."""
    ours = parse(diagnostics)
    if ours is not None:
        return ours.kind, ours.where, ours.words
    found = [
        (kind, match["code"], _words(match["message"]))
        for pattern in (_SAID, _ENDED)
        for match in pattern.finditer(diagnostics)
        if (kind := classify_code(match["code"])) is not None
    ]
    if found:
        kind, code, words = min(found, key=lambda one: _WEIGHT.index(one[0]))
        return kind, ", ".join(zones_in(words)[:1]), f"{code}: {words}"
    if match := _NO_KEYS.search(diagnostics):
        return "credentials", "", match[0].strip()
    if match := _UNREACHED.search(diagnostics):
        return "transient", "", f"AWS does not answer: {match[0].strip()}"
    return None


def zones_in(words: str) -> list[str]:
    """Availability zones that a sentence names, in its order."""
    return _ZONE.findall(words)


def _words(message: str) -> str:
    """Without what only AWS can read, and what the provider appends."""
    return _ENCODED.sub("", message).strip().rstrip(":").strip()
