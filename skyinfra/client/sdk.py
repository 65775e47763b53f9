"""`skyinfra.client.sdk`: the module from which existing code imports the verbs; each is looked up in `skyinfra`."""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    import skyinfra

    if name.startswith("_") or name not in skyinfra.__all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(skyinfra, name)
