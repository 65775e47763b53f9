"""When an idle cluster stops itself, and what runs when it does: `autostop` and `hooks` as values."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from skyinfra.model.states import AutostopWaitFor

__all__ = ["AutostopConfig", "minutes_of"]

_MINUTES = {"": 1, "m": 1, "h": 60, "d": 24 * 60, "w": 7 * 24 * 60}


def minutes_of(text: str) -> int:
    """`30`, `10m`, `2h`, `1d`, `1w` in minutes. Raises `ValueError`."""
    match = re.fullmatch(r"(\d+)([mhdw]?)", text.strip(), re.I)
    if match is None:
        raise ValueError(f"{text!r} is not a time such as 30, 10m, 2h, 1d or 1w")
    return int(match[1]) * _MINUTES[match[2].lower()]


@dataclass(frozen=True)
class AutostopConfig:
    """What `resources.autostop` says. `enabled=False` cancels what was set before."""

    enabled: bool = True
    idle_minutes: int = 0
    """0 is treated as 1 by the node."""
    down: bool = False
    wait_for: AutostopWaitFor | None = None
    """None = `jobs_and_ssh`."""
    hook: str | None = None
    hook_timeout: int | None = None

    @classmethod
    def from_yaml_config(cls, value: bool | int | str | dict[str, Any] | None) -> AutostopConfig | None:
        """None = nothing was said. Raises `ValueError` for a text that is no time or an unknown `wait_for`."""
        if value is None:
            return None
        if isinstance(value, AutostopConfig):
            return value
        if isinstance(value, bool):
            return cls(enabled=value)
        if isinstance(value, str):
            return cls(idle_minutes=minutes_of(value))
        if isinstance(value, int):
            return cls(enabled=value >= 0, idle_minutes=max(value, 0))
        wait_for = value.get("wait_for")
        return cls(
            idle_minutes=value.get("idle_minutes") or 0,
            down=bool(value.get("down")),
            wait_for=None if wait_for is None else AutostopWaitFor(str(wait_for).lower()),
            hook=value.get("hook"),
            hook_timeout=value.get("hook_timeout"),
        )

    def to_yaml_config(self) -> bool | dict[str, Any]:
        """`from_yaml_config` gives the same value back."""
        if not self.enabled:
            return False
        out: dict[str, Any] = {"idle_minutes": self.idle_minutes, "down": self.down}
        if self.wait_for is not None:
            out["wait_for"] = self.wait_for.value
        if self.hook is not None:
            out["hook"] = self.hook
        if self.hook_timeout is not None:
            out["hook_timeout"] = self.hook_timeout
        return out

    def overridden(
        self, down: bool = False, idle_minutes: int | None = None, wait_for: AutostopWaitFor | None = None
    ) -> AutostopConfig:
        """What a command's flags make of it."""
        return replace(
            self,
            enabled=True if idle_minutes is None else idle_minutes >= 0,
            idle_minutes=self.idle_minutes if idle_minutes is None else max(idle_minutes, 0),
            down=self.down or down,
            wait_for=wait_for or self.wait_for,
        )
