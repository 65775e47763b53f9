"""Which inputs differ, as the provider counts it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from skyinfra.testing.aws.double.identity import same_json
from skyinfra.testing.aws.double.resource import Resource
from skyinfra.testing.aws.double.values import Properties

__all__ = ["Difference", "changed_inputs", "differences"]

_EMPTY = (None, "", [], {})
_ADD, _DELETE, _UPDATE = 0, 2, 4  # of PropertyDiff.Kind; one more is the same with a replacement


@dataclass(frozen=True)
class Difference:
    kind: int
    """A `PropertyDiff.Kind`."""
    replaces: bool = False


def changed_inputs(resource: Resource, old: Properties, new: Properties) -> set[str]:
    """What an update is about; tags are seen to apart."""
    return {key for key in set(old) | set(new) if key not in ("tags", "region") and not _alike(resource, key, old, new)}


def differences(
    resource: Resource,
    old: Properties,
    new: Properties,
    state: Properties,
    ignored: set[str],
    tags: dict[str, str] | None,
) -> dict[str, Difference]:
    found: dict[str, Difference] = {}
    for key in sorted(set(old) | set(new)):
        if key.startswith("__") or key in ignored or _alike(resource, key, old, new):
            continue
        replaces = resource.must_replace(key, old, new) or key == "region"
        kind = _ADD if old.get(key) is None else _DELETE if new.get(key) is None else _UPDATE
        found[key] = Difference(kind + (1 if replaces else 0), replaces)
    watched = resource.tagged and tags is not None and "tags" not in found and "tags" not in ignored
    if watched and state.get("tagsAll", {}) != tags:  # the provider's own tags changed, or drifted
        found["tagsAll"] = Difference(_UPDATE)
    return found


def _alike(resource: Resource, key: str, old: Properties, new: Properties) -> bool:
    if key not in new and key in resource.computed:
        return True
    before, after = old.get(key), new.get(key)
    if before == after or (before in _EMPTY and after in _EMPTY):
        return True
    if _is_json(before) and _is_json(after) and same_json(before, after):
        return True
    if not isinstance(before, dict) or not isinstance(after, dict) or key == "tags" or key not in resource.computed:
        return False
    return all(before.get(name) == value for name, value in after.items())


def _is_json(value: Any) -> bool:
    return isinstance(value, str) and value[:1] in ("{", "[")
