"""What to do about a stack whose last operation did not end: planning is pure, `apply_to_state` too.

The cloud (`observe`, by tag) is compared with the state:

- a create that had begun and whose machine exists is **adopted**: moved into the state, marked so that the next `up`
  finishes it; one whose machine does not exist is **cleared**;
- a begun agent create, update or delete is **cleared**: each is idempotent and simply done again;
- a machine half deleted, or that neither state nor spec names, is **deleted**;
- a machine that the state has and the cloud has not is **dropped** from the state, with its agent.

Carrying it out is `operations`' part: deletions first, then one import of the corrected state.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Literal

from skyinfra.model.spec import ClusterSpec
from skyinfra.stacks.backend import State
from skyinfra.stacks.consent import KEEPSAKES

__all__ = ["Action", "apply_to_state", "plan_recovery"]

_INTERRUPTED = "the operation that made it was interrupted"


@dataclass(frozen=True)
class Action:
    """One thing to do. `urn` for adopt, clear and drop; `id` of the machine for adopt and delete."""

    what: Literal["adopt", "clear", "delete", "drop"]
    why: str
    urn: str = ""
    id: str = ""


def plan_recovery(state: State, observed: list[dict[str, Any]], spec: ClusterSpec | None, down: bool) -> list[Action]:
    """`down`: the cluster is about to be destroyed, so nothing is worth deleting first."""
    seen = {machine["id"]: machine for machine in observed}
    half_deleted = {identifier for identifier, machine in seen.items() if machine["state"] == "deleting"}
    actions, adopted = _plan_pending(state, seen, half_deleted)
    recorded = {resource["id"]: resource["urn"] for resource in state.resources if _is_machine(resource)}
    for identifier, urn in recorded.items():
        if identifier not in seen or identifier in half_deleted:
            actions.append(Action("drop", f"machine {identifier} is gone", urn=urn))
    if not down:
        for identifier in sorted(half_deleted):
            actions.append(Action("delete", "its deletion was interrupted", id=identifier))
        for identifier in sorted(set(seen) - set(recorded) - adopted - half_deleted):
            if spec is not None and not _wanted(spec, seen[identifier]):
                actions.append(Action("delete", "nothing names it", id=identifier))
    return actions


def _plan_pending(
    state: State, seen: dict[str, dict[str, Any]], half_deleted: set[str]
) -> tuple[list[Action], set[str]]:
    actions: list[Action] = []
    adopted: set[str] = set()
    known = {resource["urn"] for resource in state.resources}
    for pending in state.pending:
        resource, kind = pending["resource"], pending["type"]
        identifier = _identifier(resource)
        adoptable = kind == "creating" and identifier in seen and identifier not in half_deleted
        if adoptable and resource["urn"] not in known and resource.get("parent") in known:
            actions.append(Action("adopt", _INTERRUPTED, urn=resource["urn"], id=identifier))
            adopted.add(identifier)
        else:
            actions.append(Action("clear", f"{kind} had begun and not ended", urn=resource["urn"]))
    return actions, adopted


def _is_machine(resource: dict[str, Any]) -> bool:
    return resource["type"] in KEEPSAKES and bool(resource.get("id")) and not resource.get("delete")


def _identifier(resource: dict[str, Any]) -> str:
    """The id that a machine's Create gives, known before it ends; "" for what is no machine."""
    if resource["type"] not in KEEPSAKES:
        return ""
    inputs = resource.get("inputs") or {}
    return f"{inputs.get('cluster')}-{_whole(inputs.get('slot'))}-{_whole(inputs.get('incarnation'))}"


def _whole(value: Any) -> int:
    return int(value or 0)


def _wanted(spec: ClusterSpec, machine: dict[str, Any]) -> bool:
    return any((slot.slot, slot.incarnation) == (machine["slot"], machine["incarnation"]) for slot in spec.slots)


def apply_to_state(state: State, actions: list[Action], observed: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The corrected deployment, or None when the state is right as it is."""
    if not any(action.what in ("adopt", "clear", "drop") for action in actions):
        return None
    deployment = copy.deepcopy(state.deployment)
    seen = {machine["id"]: machine for machine in observed}
    adopts = {action.urn: action.id for action in actions if action.what == "adopt"}
    dropped = {action.urn for action in actions if action.what == "drop"}
    resources = _without(deployment.get("resources") or [], dropped)
    for pending in deployment.pop("pending_operations", None) or []:
        resource = pending["resource"]
        if resource["urn"] in adopts:
            resources.append(_adopted(resource, seen[adopts[resource["urn"]]]))
    deployment["resources"] = resources
    return deployment


def _without(resources: list[dict[str, Any]], dropped: set[str]) -> list[dict[str, Any]]:
    """The list without these and whatever hangs on them (the engine refuses a state that points at nothing)."""
    gone = set(dropped)
    kept = []
    for resource in resources:  # a resource always comes after what it depends on
        hangs_on = {resource.get("parent"), resource.get("deletedWith"), *(resource.get("dependencies") or [])}
        if resource["urn"] in gone or hangs_on & gone:
            gone.add(resource["urn"])
        else:
            kept.append(resource)
    return kept


def _adopted(resource: dict[str, Any], machine: dict[str, Any]) -> dict[str, Any]:
    outputs = {**(resource.get("inputs") or {}), "id": machine["id"], "internal_ip": machine["internal_ip"]}
    return {
        **resource,
        "id": machine["id"],
        "outputs": {**outputs, "external_ip": machine["external_ip"]},
        "initErrors": [_INTERRUPTED],
    }
