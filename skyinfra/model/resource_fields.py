"""What each field of `Resources` may be given, and the one form it is kept in. Pure functions, one per field.

Each raises `ValueError` with the field's rule; `Resources` adds which field it was.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from skyinfra.model.accelerators import accelerators_with_memory, parse_memory_form

__all__ = [
    "DEFAULT_DISK_GB",
    "Count",
    "parse_accelerators",
    "parse_cpus",
    "parse_disk_size",
    "parse_image_id",
    "parse_job_recovery",
    "parse_labels",
    "parse_local_disk",
    "parse_memory",
    "parse_ports",
    "parse_size_gb",
    "ports_as_set",
]

DEFAULT_DISK_GB = 256

Count = int | float

_BYTES = {"B": 0, "K": 1, "M": 2, "G": 3, "T": 4, "P": 5}
_SIZE = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[KMGTP]?)I?B?", re.I)


def parse_size_gb(text: str) -> float:
    """`512`, `1TB`, `16GiB`, `500MB` in GB (powers of 1024; no unit = GB). Raises `ValueError`."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a size such as 16, 16GB or 1TB")
    unit = match["unit"].upper() or "G"
    return float(match["number"]) * 1024.0 ** (_BYTES[unit] - _BYTES["G"])


def parse_cpus(value: Any) -> str | None:
    """`4`, `4.5`, `"4+"` → `"4"`, `"4.5"`, `"4+"`."""
    if value is None:
        return None
    text = str(value).strip()
    number = text.removesuffix("+")
    try:
        count = float(number)
    except ValueError:
        raise ValueError(f"cpus {text!r} is not a number, with + for 'or more'") from None
    if not 0 < count < float("inf"):
        raise ValueError(f"cpus {text!r} must be more than 0")
    return text


def parse_memory(value: Any) -> str | None:
    """`16`, `"16+"`, `"16GB"`, `"4x"` (times the vCPUs) in GB, as text."""
    if value is None:
        return None
    text = str(value).strip()
    bare = text
    plus = times = ""
    if bare.endswith("+"):
        bare, plus = bare[:-1], "+"
    if bare.lower().endswith("x"):
        bare, times = bare[:-1], "x"
    try:
        amount = float(bare)
        kept = bare
    except ValueError:
        try:
            amount = parse_size_gb(bare)
        except ValueError:
            raise ValueError(f"memory {text!r} is not a size such as 16, 16+, 16GB or 16GB+") from None
        kept = str(amount)
    if not 0 < amount < float("inf"):
        raise ValueError(f"memory {text!r} must be more than 0")
    return f"{kept}{times}{plus}"


def parse_disk_size(value: Any) -> int:
    """GB, at least 1."""
    if value is None:
        return DEFAULT_DISK_GB
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise ValueError(f"disk_size {value!r} is not a number of GB or a size such as 1TB")
    size = float(value) if isinstance(value, int) else parse_size_gb(value)
    if size < 1 or size != int(size):
        raise ValueError(f"disk_size {value!r} must be a whole number of GB, 1 or more")
    return int(size)


def parse_local_disk(value: str | None) -> str | None:
    """`[nvme|ssd:]SIZE[+]` or just `nvme`, `ssd` → `mode:SIZE[+]`."""
    if value is None:
        return None
    mode, _, size = str(value).strip().lower().rpartition(":")
    if not mode and size in ("nvme", "ssd"):
        mode, size = size, "100+"
    mode = mode or "nvme"
    if mode not in ("nvme", "ssd"):
        raise ValueError(f"local_disk {value!r}: the kind {mode!r} is not nvme or ssd")
    plus = "+" if size.endswith("+") else ""
    try:
        amount = parse_size_gb(size.removesuffix("+"))
    except ValueError:
        raise ValueError(f"local_disk {value!r} is not [nvme|ssd:]SIZE[+]") from None
    if amount <= 0:
        raise ValueError(f"local_disk {value!r} must be more than 0")
    return f"{mode}:{int(amount) if amount == int(amount) else amount}{plus}"


# --- accelerators ------------------------------------------------------------------------------------------------


def parse_accelerators(value: str | dict[str, Any] | None) -> dict[str, Count] | None:
    """One accelerator, as `{name: count}` in the user's spelling. `NAME`, `NAME:COUNT` or a map of one.

    Raises `ValueError` for a count that is not more than 0, or for several at once.
    """
    if value is None:
        return None
    entries = [value] if isinstance(value, str) else accelerator_entries(value)
    if not entries:
        return None
    if len(entries) > 1:
        raise ValueError(f"one accelerator per alternative, not {', '.join(entries)}; use any_of for several")
    name, count = split_accelerator(entries[0])
    return {name: count}


def split_accelerator(text: str) -> tuple[str, Count]:
    """`A100:8` → (`A100`, 8); no count = 1."""
    name, colon, count = text.rpartition(":")
    if not colon:
        name, count = text, "1"
    name = name.strip()
    if not name:
        raise ValueError(f"accelerators {text!r} is not NAME or NAME:COUNT")
    try:
        number = float(count)
    except ValueError:
        raise ValueError(f"accelerators {text!r}: {count!r} is not a number") from None
    if not 0 < number < float("inf"):
        raise ValueError(f"accelerators {text!r}: the count must be more than 0")
    if number > 1 and number != int(number):
        raise ValueError(f"accelerators {text!r}: above 1 the count must be whole")
    return name, int(number) if number == int(number) else number


def accelerator_entries(value: Any) -> list[str]:
    """Each alternative of an `accelerators` value as `NAME:COUNT`, memory forms spelled out, in the order given."""
    if isinstance(value, str):
        written = [value]
    elif isinstance(value, dict):
        written = [str(k) if v is None else f"{k}:{v}" for k, v in value.items()]
    else:
        written = [str(v) for v in (value if isinstance(value, (list, tuple)) else sorted(value))]
    return [name for entry in written for name in _memory_form_spelled_out(entry)]


def _memory_form_spelled_out(entry: str) -> list[str]:
    form, colon, count = entry.strip().rpartition(":")
    if not colon or not re.fullmatch(r"-?\d+(\.\d+)?", count):
        form, count = entry.strip(), "1"
    parsed = parse_memory_form(form)
    if parsed is None:
        return [entry]
    names = accelerators_with_memory(*parsed)
    if not names:
        raise ValueError(f"accelerators {entry!r}: no accelerator that is known has that memory")
    return [f"{name}:{count}" for name in names]


# --- ports, labels, images ---------------------------------------------------------------------------------------


def ports_as_set(value: Iterable[str] | None) -> set[int]:
    """Every single port of `80`, `8000-8010`, … Raises `ValueError`."""
    out: set[int] = set()
    for text in value or ():
        first, dash, last = str(text).strip().partition("-")
        low, high = _port(first, text), _port(last, text) if dash else _port(first, text)
        if low > high:
            raise ValueError(f"ports {text!r}: the first must not be above the last")
        out.update(range(low, high + 1))
    return out


def _port(text: str, whole: str) -> int:
    try:
        port = int(text)
    except ValueError:
        raise ValueError(f"ports {whole!r} is not a port or a range such as 8000-8010") from None
    if not 1 <= port <= 65535:
        raise ValueError(f"ports {whole!r}: a port is from 1 to 65535")
    return port


def parse_ports(value: Any) -> list[str] | None:
    """A port, a range, a comma list, or a list of those → the fewest ranges, in order; None for none."""
    if value is None:
        return None
    items = list(value) if isinstance(value, (list, tuple, set)) else [value]
    texts = [part for item in items for part in str(item).split(",") if part.strip()]
    ports = sorted(ports_as_set(texts))
    if not ports:
        return None
    ranges: list[list[int]] = []
    for port in ports:
        if ranges and port == ranges[-1][1] + 1:
            ranges[-1][1] = port
        else:
            ranges.append([port, port])
    return [str(a) if a == b else f"{a}-{b}" for a, b in ranges]


def parse_labels(value: Any) -> dict[str, str] | None:
    """A map of text to text; empty is none."""
    if not value:
        return None
    if not isinstance(value, dict):
        raise ValueError(f"labels must be a map, not {value!r}")
    for key, item in value.items():
        if not isinstance(key, str) or not isinstance(item, str):
            raise ValueError(f"labels: {key!r}: {item!r} must both be text")
    return dict(value)


def parse_image_id(value: Any, region: str | None) -> dict[str | None, str] | None:
    """An image, or one per region → `{region or None: image}`.

    Raises `ValueError` for a docker image beside others: it is the same everywhere.
    """
    if not value:
        return None
    if isinstance(value, str):
        return {region: value.strip()}
    images: dict[str | None, str] = {}
    for key, image in value.items():
        if key == "docker":
            return {region: f"docker:{str(image).removeprefix('docker:')}"}
        # JSON has no null keys: what crossed it says "null" for every region
        images[None if key in (None, "null") else str(key).strip()] = str(image).strip()
    if len(images) > 1 and None in images:
        raise ValueError("image_id: either one image for all regions or one per region, not both")
    if len(images) > 1 and any(i.startswith("docker:") for i in images.values()):
        raise ValueError("image_id: a docker image cannot differ between regions")
    return images


# --- job recovery ------------------------------------------------------------------------------------------------


def parse_job_recovery(value: Any) -> dict[str, Any] | None:
    """A strategy name or a map → a map; `none` and null are none. Names are upper case."""
    if value is None:
        return None
    if isinstance(value, str):
        if value.lower() in ("none", ""):
            return None
        return {"strategy": value.upper()}
    out = dict(value)
    strategy = out.get("strategy")
    if isinstance(strategy, str):
        out["strategy"] = None if strategy.lower() in ("none", "") else strategy.upper()
    if out.get("strategy") is None:
        out.pop("strategy", None)
    codes = out.get("recover_on_exit_codes")
    if isinstance(codes, int):
        out["recover_on_exit_codes"] = [codes]
    for code in out.get("recover_on_exit_codes") or []:
        if not isinstance(code, int) or not 0 <= code <= 255:
            raise ValueError(f"job_recovery: exit code {code!r} is not from 0 to 255")
    if (out.get("max_restarts_on_errors") or 0) < 0:
        raise ValueError("job_recovery: max_restarts_on_errors must be 0 or more")
    return {k: v for k, v in out.items() if v is not None} or None
