"""How `resources` is written (one map, several accelerators, `any_of`, `ordered`), and how one is written back.

Alternatives are spelled out here: every combination becomes a `Resources` of its own, in a set when any will do (the
cheapest wins) and in a list when the order was given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from skyinfra.model.problems import path_of, raise_problems, under
from skyinfra.model.resource_fields import accelerator_entries
from skyinfra.model.schema import RESOURCES
from skyinfra.model.schema_check import check

if TYPE_CHECKING:
    from skyinfra.model.resources import Resources

__all__ = ["from_yaml_config", "several_to_yaml_config", "to_yaml_config"]


def from_yaml_config(config: dict[str, Any] | None) -> set[Resources] | list[Resources]:
    """A set of alternatives, or a list when their order matters. Raises as `Resources.from_yaml_config`."""
    raise_problems(check(config, {**RESOURCES, "type": ["object", "null"]}), "resources YAML")
    return build(config or {})


def build(config: dict[str, Any], hooks: list[dict[str, Any]] | None = None) -> set[Resources] | list[Resources]:
    """The same for a map whose shape was checked already; `hooks` go to every alternative."""
    base = _renamed(dict(config))
    any_of, ordered = base.pop("any_of", None), base.pop("ordered", None)
    accelerators = base.get("accelerators")
    in_order = isinstance(accelerators, (list, tuple)) and len(accelerators) > 1
    if any_of is not None and ordered is not None:
        with under("ordered"):
            raise ValueError("any_of and ordered exclude each other")
    if in_order and any_of is not None:
        with under("any_of"):
            raise ValueError("a list of accelerators is tried in order, which any_of would undo; use a map of them")
    if ordered is not None and _is_several(accelerators):
        with under("ordered"):
            raise ValueError("several accelerators and ordered exclude each other: put one into each alternative")
    if any_of:
        return {r for i, alt in enumerate(any_of) for r in _alternative(base, "any_of", i, alt, hooks)}
    if ordered:
        return [r for i, alt in enumerate(ordered) for r in _alternative(base, "ordered", i, alt, hooks)]
    found = _expanded(base, hooks)
    return found if in_order else set(found)


def _renamed(config: dict[str, Any]) -> dict[str, Any]:
    """`gpus` is `accelerators`; `hooks` belong elsewhere."""
    if config.get("hooks") is not None:
        with under("hooks"):
            raise ValueError("hooks are written under config, not under resources")
    gpus = config.pop("gpus", None)
    if gpus is None:
        return config
    if config.get("accelerators") is not None:
        with under("gpus"):
            raise ValueError("gpus is another name for accelerators: give one of them")
    return {**config, "accelerators": gpus}


def _is_several(accelerators: Any) -> bool:
    return not isinstance(accelerators, str) and accelerators is not None and len(accelerators) > 1


def _alternative(
    base: dict[str, Any], word: str, index: int, config: dict[str, Any] | None, hooks: list[dict[str, Any]] | None
) -> list[Resources]:
    """One entry of any_of or ordered over the base; what it sets to null is unset."""
    with under(word, index):
        own = _renamed(dict(config or {}))
    merged = {**base, **own}
    if own.get("labels") and base.get("labels"):
        merged["labels"] = {**base["labels"], **own["labels"]}
    try:
        found = _expanded(merged, hooks)
    except Exception as exc:  # only to say whose key it was
        path = path_of(exc)
        if path and path[0] in own:
            exc._key_path = (word, index, *path)  # type: ignore[attr-defined]
        raise
    if word == "ordered" and len(found) > 1:
        with under(word, index, "accelerators"):
            raise ValueError("one accelerator per alternative in ordered")
    return found


def _expanded(config: dict[str, Any], hooks: list[dict[str, Any]] | None) -> list[Resources]:
    """One `Resources` per accelerator."""
    from skyinfra.model.resources import Resources

    arguments = {k: v for k, v in config.items() if v is not None}
    accelerators = arguments.pop("accelerators", None)
    with under("accelerators"):
        entries = accelerator_entries(accelerators) if accelerators else []
    return [Resources(**arguments, accelerators=entry, hooks=hooks) for entry in entries or [None]]


# --- and back ----------------------------------------------------------------------------------------------------


def several_to_yaml_config(resources: Resources | set[Resources] | list[Resources]) -> dict[str, Any]:
    """The `resources` map of a task. Alternatives of a set come sorted, so that equal sets are written alike."""
    import json

    if isinstance(resources, list):
        return {"ordered": [r.to_yaml_config() for r in resources]}
    alternatives = list(resources) if isinstance(resources, set) else [resources]
    if len(alternatives) == 1:
        return alternatives[0].to_yaml_config()
    configs = [r.to_yaml_config() for r in alternatives]
    return {"any_of": sorted(configs, key=lambda c: json.dumps(c, sort_keys=True, default=str))}


def to_yaml_config(r: Resources) -> dict[str, Any]:
    """Only what was said. Accelerators keep the user's spelling: a catalog may know a name that we do not."""
    written = {
        "infra": r.infra.to_str(),
        "instance_type": r.instance_type,
        "cpus": r.cpus,
        "memory": r.memory,
        "accelerators": dict(r._accelerators) if r._accelerators else None,
        "accelerator_args": dict(r.accelerator_args) if r.accelerator_args else None,
        "use_spot": r.use_spot if r.use_spot_specified else None,
        "job_recovery": dict(r.job_recovery) if r.job_recovery else None,
        "disk_size": r.disk_size if r.disk_size_specified else None,
        "disk_tier": r.disk_tier.value if r.disk_tier else None,
        "network_tier": r.network_tier.value if r.network_tier else None,
        "local_disk": r.local_disk,
        "max_hourly_cost": r.max_hourly_cost,
        "image_id": dict(r.image_id) if r.image_id else None,
        "ports": list(r.ports) if r.ports else None,
        "labels": dict(r.labels) if r.labels else None,
        "autostop": r.autostop_config.to_yaml_config() if r.autostop_config else None,
        "priority": r.priority,
        "priority_class": r.priority_class,
        "volumes": [dict(v) for v in r.volumes] if r.volumes else None,
        "_docker_username_for_runpod": r.docker_username_for_runpod,
        "_is_image_managed": r.is_image_managed,
        "_requires_fuse": True if r.requires_fuse else None,
        "_cluster_config_overrides": r.cluster_config_overrides or None,
        "_no_missing_accel_warnings": True if r.no_missing_accel_warnings else None,
    }
    return {k: v for k, v in written.items() if v is not None}
