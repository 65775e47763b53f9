"""What follows from a failed operation: one table from failure kinds to the next move, and the public error of each."""

from __future__ import annotations

import enum
from typing import Any

from skyinfra.model import exceptions as public
from skyinfra.stacks.operation import OperationResult

__all__ = ["Next", "can_move", "error_of", "next_move"]


class Next(enum.Enum):
    OTHER_PLACE = "the next candidate; this one is remembered as short for a while"
    OTHER_CLOUD = "the next candidate on another cloud"
    AGAIN = "the same again, after a pause"
    ONCE_MORE = "the same once more: the worker begins with recovery"
    STOP = "nothing will help but the user"


_NEXT: dict[str, Next] = {
    "capacity": Next.OTHER_PLACE,
    "quota": Next.OTHER_PLACE,
    "spot_price": Next.OTHER_PLACE,
    "throttled": Next.AGAIN,
    "transient": Next.AGAIN,
    "engine": Next.ONCE_MORE,
    "credentials": Next.OTHER_CLOUD,
    "permission": Next.OTHER_CLOUD,
    "user": Next.STOP,
    "consent": Next.STOP,
    "leftovers": Next.STOP,
    "ours": Next.STOP,
}


def next_move(result: OperationResult) -> Next:
    return _NEXT.get(result.kind or "ours", Next.STOP)


def can_move(result: OperationResult) -> bool:
    """Whether another place may do better."""
    return next_move(result) in (Next.OTHER_PLACE, Next.OTHER_CLOUD)


def error_of(result: OperationResult, cluster_name: str, operation: str) -> Exception:
    """The public exception for a failure that nothing heals."""
    said = result.message or f"the {operation} of cluster '{cluster_name}' failed"
    error: Exception
    hint: str | None = None
    match result.kind:
        case "capacity" | "quota" | "spot_price":
            error = public.ResourcesUnavailableError(said)
        case "credentials":
            error, hint = public.InvalidCloudCredentials(said), "check the cloud's credentials"
        case "permission":
            error = public.NoCloudAccessError(said)
        case "user":
            error = ValueError(said)
        case "consent":
            error, hint = public.ClusterSetUpError(said), "`--replace-nodes` allows it"
        case "leftovers":
            names = ", ".join(result.leftovers) or said
            error = RuntimeError(f"cluster '{cluster_name}' is not gone; left: {names}")
            hint = f"try `skyinfra down {cluster_name}` again; `--purge` forgets the cluster and leaves them"
        case "engine":
            error = public.ClusterSetUpError(f"cluster '{cluster_name}': {said}")
            hint = f"`skyinfra launch -c {cluster_name} …` recovers it, `skyinfra down {cluster_name}` removes it"
        case "transient" | "throttled":
            error, hint = public.ClusterSetUpError(f"cluster '{cluster_name}': {said}"), "it may pass: try again"
        case _:
            error, hint = public.ClusterSetUpError(f"cluster '{cluster_name}': {said}"), "please report this"
    return public.with_hint(error, hint, result.detail or None)


def failure(result: OperationResult, at: float) -> dict[str, Any]:
    """The part of a result that a step keeps."""
    return {"kind": result.kind, "message": result.message, "leftovers": list(result.leftovers), "at": at}
