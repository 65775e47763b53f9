"""What clusters and tasks may be called, and how a name looks on a cloud."""

from __future__ import annotations

import hashlib
import re

from skyinfra.model.exceptions import InvalidClusterNameError, NotSupportedError

__all__ = [
    "CLUSTER_NAME",
    "ENV_NAME",
    "JOB_GROUP_MEMBER",
    "TASK_NAME",
    "check_not_reserved",
    "default_cluster_name",
    "is_valid_cluster_name",
    "name_on_cloud",
    "validate_cluster_name",
]

CLUSTER_NAME = re.compile(r"[a-zA-Z]([-_.a-zA-Z0-9]*[a-zA-Z0-9])?")
TASK_NAME = re.compile(r"[a-zA-Z0-9]+(?:[._-]{1,2}[a-zA-Z0-9]+)*")
JOB_GROUP_MEMBER = re.compile(r"[a-zA-Z0-9_-]+")
ENV_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")

_RESERVED_PREFIXES = ("sky-jobs-controller-", "sky-serve-controller-")
_MAX_CLUSTER_NAME = 200  # a path component and a tag value must hold it


def is_valid_cluster_name(name: str) -> bool:
    return len(name) <= _MAX_CLUSTER_NAME and CLUSTER_NAME.fullmatch(name) is not None


def validate_cluster_name(name: str | None) -> None:
    """Returns for a name that a cluster may have, and for None. Raises `InvalidClusterNameError` otherwise."""
    if name is None:
        return
    if not isinstance(name, str) or CLUSTER_NAME.fullmatch(name) is None:
        raise InvalidClusterNameError(
            f"cluster name {name!r} is not valid: it starts with a letter, goes on with letters, digits, '-', '_' "
            "or '.', and ends with a letter or digit"
        )
    if len(name) > _MAX_CLUSTER_NAME:
        raise InvalidClusterNameError(
            f"cluster name of {len(name)} characters: at most {_MAX_CLUSTER_NAME} are allowed"
        )


def check_not_reserved(name: str) -> None:
    """Raises `NotSupportedError` for a name that only controllers may have."""
    if name.startswith(_RESERVED_PREFIXES):
        raise NotSupportedError(f"cluster name {name!r} is reserved: it starts like a controller's")


def default_cluster_name(hex4: str, user: str) -> str:
    """`sky-<4 hex>-<user>`, with what a cluster name may not hold left out of the user's."""
    cleaned = re.sub(r"[^a-z0-9-]", "", user.lower()).strip("-") or "user"
    return f"sky-{hex4}-{cleaned}"


def name_on_cloud(name: str, user_hash: str, max_length: int = 35) -> str:
    """Lower case, `.` and `_` as `-`, the user's hash behind; cut with 2 characters of a digest when too long."""
    readable = re.sub(r"[._]", "-", name).lower()
    tail = f"-{user_hash}"
    if len(readable) + len(tail) <= max_length:
        return readable + tail
    digits = "0123456789abcdefghijklmnopqrstuvwxyz"
    number = int(hashlib.md5(name.encode(), usedforsecurity=False).hexdigest(), 16)
    mark = digits[number % 36] + digits[number // 36 % 36]
    return readable[: max_length - len(tail) - 3].rstrip("-") + f"-{mark}" + tail
