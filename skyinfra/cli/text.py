"""Values as people read them: aligned tables, times, durations."""

from __future__ import annotations

import time
from collections.abc import Sequence

__all__ = ["ago", "duration", "shortened", "table"]

_UNITS = ((86400, "day"), (3600, "hr"), (60, "min"), (1, "sec"))


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Columns padded to their widest cell, two spaces apart; None shows as ``-``."""
    cells = [list(columns), *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells)


def _cell(value: object) -> str:
    return "-" if value is None or value == "" else str(value).replace("\n", " ")


def ago(at: float | None, now: float | None = None) -> str:
    """A moment as its distance: ``just now``, ``4 mins ago``; ``-`` when it has not come."""
    if at is None or at <= 0:
        return "-"
    passed_s = (time.time() if now is None else now) - at
    if passed_s < 1:
        return "just now"
    size, name = next(unit for unit in _UNITS if passed_s >= unit[0])
    count = int(passed_s // size)
    return f"{count} {name}{'s' if count > 1 else ''} ago"


def duration(seconds: float | None) -> str:
    """``7s``, ``3m 5s``, ``2h 10m``, ``4d 3h``; ``-`` for None."""
    if seconds is None:
        return "-"
    whole = max(0, int(seconds))
    days, rest = divmod(whole, 86400)
    hours, rest = divmod(rest, 3600)
    minutes, secs = divmod(rest, 60)
    if days:
        return f"{days}d {hours}h"
    if hours:
        return f"{hours}h {minutes}m"
    return f"{minutes}m {secs}s" if minutes else f"{secs}s"


def shortened(value: str | None, width: int) -> str:
    """At most `width` characters, the end cut off with ``…``."""
    text = value or "-"
    return text if len(text) <= width else text[: width - 1] + "…"
