"""Accelerator names: one spelling for each, how much memory it has, and who makes it.

Names are matched in any case and answered in the usual one (`a100-80gb` → `A100-80GB`). A name that is not in the table
is kept as written: a catalog may know it. TPU names are lower case, as their clouds write them.
"""

from __future__ import annotations

import re

__all__ = [
    "ACCELERATORS",
    "accelerators_with_memory",
    "canonical_accelerator",
    "default_tpu_runtime",
    "is_tpu",
    "parse_memory_form",
]

# name: (maker, GB of memory per device). Sizes as the clouds state them, rounded to the maker's figure.
ACCELERATORS: dict[str, tuple[str, int]] = {
    "A10": ("NVIDIA", 24),
    "A100": ("NVIDIA", 40),
    "A100-40GB": ("NVIDIA", 40),
    "A100-80GB": ("NVIDIA", 80),
    "A100-80GB-SXM": ("NVIDIA", 80),
    "A10G": ("NVIDIA", 24),
    "A16": ("NVIDIA", 16),
    "A2": ("NVIDIA", 16),
    "A30": ("NVIDIA", 24),
    "A40": ("NVIDIA", 48),
    "B100": ("NVIDIA", 192),
    "B200": ("NVIDIA", 192),
    "B300": ("NVIDIA", 288),
    "GB200": ("NVIDIA", 192),
    "GB300": ("NVIDIA", 288),
    "GH200": ("NVIDIA", 96),
    "H100": ("NVIDIA", 80),
    "H100-80GB": ("NVIDIA", 80),
    "H100-MEGA": ("NVIDIA", 80),
    "H100-MEGA-80GB": ("NVIDIA", 80),
    "H100-NVL": ("NVIDIA", 94),
    "H100-SXM": ("NVIDIA", 80),
    "H20": ("NVIDIA", 96),
    "H200": ("NVIDIA", 141),
    "H200-SXM": ("NVIDIA", 141),
    "K80": ("NVIDIA", 12),
    "L4": ("NVIDIA", 24),
    "L40": ("NVIDIA", 48),
    "L40S": ("NVIDIA", 48),
    "M4000": ("NVIDIA", 8),
    "M60": ("NVIDIA", 8),
    "P100": ("NVIDIA", 16),
    "P4": ("NVIDIA", 8),
    "P4000": ("NVIDIA", 8),
    "P5000": ("NVIDIA", 16),
    "P6000": ("NVIDIA", 24),
    "RTX-PRO-4500": ("NVIDIA", 32),
    "RTX-PRO-6000": ("NVIDIA", 96),
    "RTX2080Ti": ("NVIDIA", 11),
    "RTX3060": ("NVIDIA", 12),
    "RTX3080": ("NVIDIA", 10),
    "RTX3090": ("NVIDIA", 24),
    "RTX4000": ("NVIDIA", 8),
    "RTX4090": ("NVIDIA", 24),
    "RTX5000": ("NVIDIA", 16),
    "RTX5090": ("NVIDIA", 32),
    "RTX6000": ("NVIDIA", 24),
    "RTX6000-Ada": ("NVIDIA", 48),
    "RTXA4000": ("NVIDIA", 16),
    "RTXA4500": ("NVIDIA", 20),
    "RTXA5000": ("NVIDIA", 24),
    "RTXA6000": ("NVIDIA", 48),
    "T4": ("NVIDIA", 16),
    "T4g": ("NVIDIA", 16),
    "V100": ("NVIDIA", 16),
    "V100-32GB": ("NVIDIA", 32),
    "MI25": ("AMD", 16),
    "MI50": ("AMD", 16),
    "MI100": ("AMD", 32),
    "MI200": ("AMD", 64),
    "MI210": ("AMD", 64),
    "MI250": ("AMD", 128),
    "MI300": ("AMD", 192),
    "MI300X": ("AMD", 192),
    "MI325X": ("AMD", 256),
    "MI355X": ("AMD", 288),
    "Radeon MI25": ("AMD", 16),
    "Radeon Pro V520": ("AMD", 8),
    "Gaudi HL-205": ("Intel", 32),
    "Gaudi2": ("Intel", 96),
    "Gaudi3": ("Intel", 128),
    "Inferentia": ("AWS", 8),
    "Inferentia2": ("AWS", 32),
    "Trainium": ("AWS", 32),
    "Trainium2": ("AWS", 96),
}

_BY_FOLDED = {name.lower(): name for name in ACCELERATORS}
_MAKERS = {maker.lower(): maker for maker, _ in ACCELERATORS.values()}
_MEMORY_FORM = re.compile(r"^(?:(?P<maker>[A-Za-z]+):)?(?P<size>\d+(?:\.\d+)?)(?P<unit>[GT]I?B)(?P<plus>\+)?$", re.I)


def is_tpu(name: str) -> bool:
    return name.lower().startswith("tpu")


def canonical_accelerator(name: str) -> str:
    """The usual spelling of a name, or the name itself when it is not in the table."""
    if is_tpu(name):
        return name.lower()
    return _BY_FOLDED.get(name.lower(), name)


def default_tpu_runtime(name: str) -> str:
    """The runtime image that a TPU of that generation needs."""
    for mark, runtime in (
        ("v5lite", "v2-alpha-tpuv5-lite"),
        ("v5e", "v2-alpha-tpuv5-lite"),
        ("v5p", "v2-alpha-tpuv5"),
        ("v6e", "v2-alpha-tpuv6e"),
    ):
        if mark in name.lower():
            return runtime
    return "tpu-vm-base"


def parse_memory_form(text: str) -> tuple[str | None, float, bool] | None:
    """`NVIDIA:80GB+` → (maker or None, GB, or more); None when `text` is a name instead.

    Raises `ValueError` for an unknown maker.
    """
    match = _MEMORY_FORM.match(text)
    if match is None:
        return None
    maker = match["maker"]
    if maker is not None:
        if maker.lower() not in _MAKERS:
            raise ValueError(
                f"{maker!r} is not a maker of accelerators that is known; it may be: NVIDIA, AMD, Intel, AWS"
            )
        maker = _MAKERS[maker.lower()]
    factor = 1024 if match["unit"].upper().startswith("T") else 1
    return maker, float(match["size"]) * factor, match["plus"] is not None


def accelerators_with_memory(maker: str | None, size_gb: float, or_more: bool) -> list[str]:
    """The known accelerators of that size, smallest first."""
    fits = [
        (memory_gb, name)
        for name, (made_by, memory_gb) in ACCELERATORS.items()
        if (maker is None or made_by == maker) and (memory_gb >= size_gb if or_more else memory_gb == size_gb)
    ]
    return [name for _, name in sorted(fits)]
