"""`skyinfra.client.sdk`: the module from which existing code imports the verbs; each is looked up in `skyinfra`.

What SkyPilot has only here is in `_ONLY_HERE`, with the module that owns it.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_ONLY_HERE = {
    "check": "checks",
    "enabled_clouds": "checks",
    "list_accelerator_counts": "offers",
    "list_accelerators": "offers",  # `skyinfra`'s is another: it asks no server and returns the value
    "workspaces": "team",
}


def __getattr__(name: str) -> Any:
    import skyinfra

    if name in _ONLY_HERE:
        return getattr(import_module(f"skyinfra.client.{_ONLY_HERE[name]}"), name)
    if name.startswith("_") or name not in skyinfra.__all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(skyinfra, name)
