"""What a machine without accelerators is, where the user left it open: families, vCPUs and memory.

As SkyPilot's users know it: 8 or more vCPUs when neither cpus nor memory is given, 4 GiB per vCPU when memory is not,
out of each cloud's general families. A wish that no general machine meets may go to any other family.
"""

from __future__ import annotations

from dataclasses import replace

from skyinfra.catalog.ask import Ask, Bound
from skyinfra.catalog.table import Shape

__all__ = ["in_default_family", "with_defaults"]

_DEFAULT_CPUS = Bound(8, at_least=True)
_DEFAULT_MEMORY = Bound(4, at_least=True, per_vcpu=True)
_AWS = ("m6i", "m6id", "m7i", "r6i", "r6id", "r7i", "c6i", "c6id", "c7i")
_GCP = tuple(f"{family}-{kind}-" for family in ("n2", "n4") for kind in ("standard", "highmem", "highcpu"))
_AZURE = (("Standard_D", "s_v5"), ("Standard_E", "s_v5"), ("Standard_F", "s_v2"))


def with_defaults(ask: Ask) -> Ask:
    """The ask with its open ends closed; unchanged when it names a machine type or an accelerator."""
    if ask.instance_type is not None or ask.wants_accelerator:
        return ask
    cpus = _DEFAULT_CPUS if ask.cpus is None and ask.memory is None else ask.cpus
    return replace(ask, cpus=cpus, memory=ask.memory or _DEFAULT_MEMORY)


def in_default_family(cloud: str, shape: Shape) -> bool:
    """Whether a machine type is one of its cloud's general ones; a cloud without a list has only general ones."""
    name = shape.instance_type
    if cloud == "aws":
        return name.split(".", 1)[0] in _AWS
    if cloud == "gcp":
        return name.startswith(_GCP)
    if cloud == "azure":
        return any(_azure_family(name, start, end) for start, end in _AZURE)
    return True


def _azure_family(name: str, start: str, end: str) -> bool:
    """`Standard_D8s_v5` is of (`Standard_D`, `s_v5`); `Standard_D8ads_v5` is not."""
    return name.startswith(start) and name.endswith(end) and name[len(start) : -len(end)].isdigit()
