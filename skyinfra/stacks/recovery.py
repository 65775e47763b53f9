"""What to do about a stack whose last operation did not end: planning is pure, `apply_to_state` too.

The cloud (`observe`, by tag) is compared with the state:

- a create that had begun and whose machine exists is **adopted**: moved into the state, marked so that the next `up`
  finishes it; one whose machine does not exist is **cleared**;
- on a cloud whose creates are no names (`by_tag`), a machine that a slot wants, that no state names and whose slot is
  empty is **adopted** too; any other that the state does not name is **deleted**: it never did anything;
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


def plan_recovery(
    state: State, observed: list[dict[str, Any]], spec: ClusterSpec | None, down: bool, by_tag: bool = False
) -> list[Action]:
    """`down`: the cluster is about to be destroyed, so nothing is worth deleting first.

    `by_tag`: a second Create would make a second machine, so none may be left that the state does not name.
    """
    seen = {machine["id"]: machine for machine in observed}
    half_deleted = {identifier for identifier, machine in seen.items() if machine["state"] == "deleting"}
    recorded = {resource["id"]: resource["urn"] for resource in state.resources if _is_machine(resource)}
    unnamed = sorted(set(seen) - set(recorded) - half_deleted)
    actions, adopted = _plan_pending(state, [seen[identifier] for identifier in unnamed])
    for identifier, urn in recorded.items():
        if identifier not in seen or identifier in half_deleted:
            actions.append(Action("drop", f"machine {identifier} is gone", urn=urn))
    if not down:
        for identifier in sorted(half_deleted):
            actions.append(Action("delete", "its deletion was interrupted", id=identifier))
        left = [seen[identifier] for identifier in unnamed if identifier not in adopted]
        actions += _plan_unnamed(state, left, spec, by_tag, adopted)
    return actions


def _plan_unnamed(
    state: State, machines: list[dict[str, Any]], spec: ClusterSpec | None, by_tag: bool, adopted: set[str]
) -> list[Action]:
    """Machines that neither the state nor an adopted create names."""
    if spec is None:
        return []
    begun = {_place_of(pending["resource"]) for pending in state.pending}
    taken = {resource["urn"] for resource in state.resources if _is_machine(resource)}
    taken |= {pending["resource"]["urn"] for pending in state.pending if adopted and _is_keepsake(pending["resource"])}
    actions = []
    for machine in machines:
        place, urn = (machine["slot"], machine["incarnation"]), _urn_of(state, machine["slot"])
        if by_tag and _wanted(spec, machine) and place not in begun and urn and urn not in taken:
            actions.append(Action("adopt", "a slot wants it and no state names it", urn=urn, id=machine["id"]))
            taken.add(urn)
        elif by_tag or not _wanted(spec, machine):
            actions.append(Action("delete", "nothing names it", id=machine["id"]))
    return actions


def _plan_pending(state: State, unnamed: list[dict[str, Any]]) -> tuple[list[Action], set[str]]:
    actions: list[Action] = []
    adopted: set[str] = set()
    known = {resource["urn"] for resource in state.resources}
    for pending in state.pending:
        resource, kind = pending["resource"], pending["type"]
        made = [
            machine["id"]
            for machine in unnamed
            if machine["id"] not in adopted and (machine["slot"], machine["incarnation"]) == _place_of(resource)
        ]
        if kind == "creating" and made and resource["urn"] not in known and resource.get("parent") in known:
            actions.append(Action("adopt", _INTERRUPTED, urn=resource["urn"], id=made[0]))
            adopted.add(made[0])
        else:
            actions.append(Action("clear", f"{kind} had begun and not ended", urn=resource["urn"]))
    return actions, adopted


def _is_machine(resource: dict[str, Any]) -> bool:
    return _is_keepsake(resource) and bool(resource.get("id")) and not resource.get("delete")


def _is_keepsake(resource: dict[str, Any]) -> bool:
    return resource["type"] in KEEPSAKES


def _place_of(resource: dict[str, Any]) -> tuple[int, int] | None:
    """Slot and incarnation of a machine, as its inputs or its tags say; None for what is no machine."""
    if not _is_keepsake(resource):
        return None
    inputs = resource.get("inputs") or {}
    tags = inputs.get("tags") or {}
    slot = inputs.get("slot", tags.get("skyinfra-slot"))
    return _whole(slot), _whole(inputs.get("incarnation", tags.get("skyinfra-incarnation")))


def _urn_of(state: State, slot: int) -> str:
    """Where the program would declare this slot's machine on EC2; "" while the state has no cluster to hang it on."""
    cluster = _the_one(state, "skyinfra:index:Cluster")
    if cluster is None or _the_one(state, "pulumi:providers:aws") is None:
        return ""
    head, _, name = cluster["urn"].rpartition("::")
    return f"{head}$aws:ec2/instance:Instance::{name}-{slot}"


def _the_one(state: State, kind: str) -> dict[str, Any] | None:
    return next((resource for resource in state.resources if resource["type"] == kind), None)


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
    begun = {
        pending["resource"]["urn"]: pending["resource"] for pending in deployment.pop("pending_operations", None) or []
    }
    for urn, identifier in adopts.items():
        resources.append(_adopted(begun.get(urn) or _bare(state, urn), seen[identifier]))
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
    if not resource["type"].startswith("skyinfra:"):  # a refresh fills in the rest, see `operations`
        return {**resource, "id": machine["id"], "outputs": dict(resource.get("inputs") or {})}
    outputs = {**(resource.get("inputs") or {}), "id": machine["id"], "internal_ip": machine["internal_ip"]}
    return {
        **resource,
        "id": machine["id"],
        "outputs": {**outputs, "external_ip": machine["external_ip"]},
        "initErrors": [_INTERRUPTED],
    }


def _bare(state: State, urn: str) -> dict[str, Any]:
    """A resource of which nothing is known but where it belongs: without inputs, a refresh reads it as an import."""
    cluster, provider = _the_one(state, "skyinfra:index:Cluster"), _the_one(state, "pulumi:providers:aws")
    assert cluster is not None, "`_urn_of` gives no urn without it"
    assert provider is not None, "`_urn_of` gives no urn without it"
    kind = urn.split("::")[2].rpartition("$")[2]
    return {
        "urn": urn,
        "custom": True,
        "type": kind,
        "inputs": {},
        "parent": cluster["urn"],
        "provider": f"{provider['urn']}::{provider['id']}",
    }
