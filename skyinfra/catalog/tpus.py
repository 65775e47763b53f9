"""TPU names. The clouds' data count chips of a generation; users ask for a slice by its product name.

`TPU-v5p` on `v5p-8` (4 chips: this generation counts cores in the name) is the slice ``tpu-v5p-8``, one of it.
"""

from __future__ import annotations

from skyinfra.model.accelerators import is_tpu

__all__ = ["chips_alias", "slice_name"]

_GENERATIONS = {"tpu-v5litepod": "tpu-v5e"}  # product name -> the generation's own, where the two differ


def slice_name(accelerator: str, instance_type: str) -> str | None:
    """The name by which a user asks for a slice, or None when it is no TPU (or already named so)."""
    if not is_tpu(accelerator) or accelerator.lower() == f"tpu-{instance_type}":
        return None
    return f"tpu-{instance_type}"


def chips_alias(accelerator: str) -> str | None:
    """The other name of a slice: ``tpu-v5litepod-8`` is also asked for as ``tpu-v5e-8``."""
    product, _, size = accelerator.lower().rpartition("-")
    return f"{_GENERATIONS[product]}-{size}" if product in _GENERATIONS else None
