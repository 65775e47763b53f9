"""Whether a machine's hardware meets an ask: one predicate, used by every table, live pool and "why not"."""

from __future__ import annotations

from skyinfra.catalog.ask import Ask
from skyinfra.catalog.table import Shape
from skyinfra.catalog.tpus import chips_alias
from skyinfra.model.accelerators import ACCELERATORS, is_tpu

__all__ = ["accelerator_fits", "count_fits", "disk_fits", "is_gpu", "kind_fits", "shape_fits"]

_COUNT_TOLERANCE = 0.01  # clouds write a third of a GPU as 0.33 or 0.333
_GPU_MAKERS = ("NVIDIA", "AMD", "Intel")
_GB_PER_GIB = 1.073741824


def is_gpu(accelerator: str) -> bool:
    """Whether it is a GPU, as opposed to a TPU or another accelerator. A name that nobody knows counts as one."""
    if is_tpu(accelerator):
        return False
    return accelerator not in ACCELERATORS or ACCELERATORS[accelerator][0] in _GPU_MAKERS


def accelerator_fits(shape: Shape, ask: Ask) -> bool:
    """Whether a machine has the kind of accelerator asked for, whatever its number."""
    if not ask.wants_accelerator:
        return shape.accelerator is None
    if shape.accelerator is None:
        return False
    if ask.accelerator is not None:
        asked = ask.accelerator.lower()
        return asked in (shape.accelerator.lower(), chips_alias(shape.accelerator))
    maker, memory = _as_sold(shape)
    if maker not in _GPU_MAKERS or ask.accelerator_maker not in (None, maker) or memory is None:
        return False
    return ask.accelerator_memory is not None and ask.accelerator_memory.allows(memory)


def count_fits(shape: Shape, ask: Ask) -> bool:
    """Whether a machine has as many accelerators as asked for, exactly: what is paid for is what was asked."""
    return abs(shape.accelerator_count - ask.count) < _COUNT_TOLERANCE


def disk_fits(shape: Shape, ask: Ask) -> bool:
    """Whether a machine comes with the disks asked for. A machine type that is named is taken at the user's word
    where the size is not known."""
    if ask.local_disk is None or (shape.local_disk_gb is None and ask.instance_type is not None):
        return True
    return ask.local_disk.allows(shape.local_disk_gb)


def shape_fits(shape: Shape, ask: Ask) -> bool:
    """Whether a machine's hardware is what was asked for. A named machine type need not name its accelerators."""
    if ask.cpus is not None and not ask.cpus.allows(shape.vcpus):
        return False
    if ask.memory is not None and not ask.memory.allows(shape.memory_gib, shape.vcpus):
        return False
    if not disk_fits(shape, ask):
        return False
    if ask.instance_type is not None and ask.instance_type.lower() != shape.instance_type.lower():
        return False
    return kind_fits(shape, ask) and (not ask.wants_accelerator or count_fits(shape, ask))


def kind_fits(shape: Shape, ask: Ask) -> bool:
    """Whether a machine has the kind of accelerator asked for, or none where none is; a machine type that is named
    without accelerators has its own, but for N1: what hangs on those is chosen beside the name."""
    if ask.instance_type is not None and not ask.wants_accelerator:
        return shape.accelerator is None or not shape.instance_type.startswith("n1-")
    return accelerator_fits(shape, ask)


def _as_sold(shape: Shape) -> tuple[str, float | None]:
    """Maker and GB of memory of a machine's accelerator, as its maker states them: devices report a little less."""
    known = ACCELERATORS.get(shape.accelerator or "")
    if known is not None:
        return known[0], known[1]
    memory = shape.accelerator_memory_gib
    return "NVIDIA", None if memory is None else memory * _GB_PER_GIB
