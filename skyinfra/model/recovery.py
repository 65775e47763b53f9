"""How a managed job may come back after its machines went: the strategies by name. What they do is done elsewhere."""

from __future__ import annotations

from dataclasses import dataclass

from skyinfra.model.problems import closest

__all__ = ["JOBS_RECOVERY_STRATEGY_REGISTRY", "RecoveryStrategy"]


@dataclass(frozen=True)
class RecoveryStrategy:
    """A strategy that `job_recovery` may name."""

    name: str
    behaviour: str


class _Registry(dict[str, RecoveryStrategy]):
    """Strategies by lower-case name; `default` is the one that counts when a task names none."""

    default = "eager_next_region"

    def from_str(self, name: str | None) -> RecoveryStrategy:
        """The strategy of a name in any case; None is the default. Raises `ValueError` for an unknown one."""
        key = self.default if name is None else name.lower()
        if key not in self:
            meant = closest(name, [known.upper() for known in self])
            hint = f"; did you mean {meant!r}?" if meant else ""
            known = ", ".join(known.upper() for known in sorted(self))
            raise ValueError(f"job_recovery strategy {name!r} is not one of {known}{hint}")
        return self[key]


JOBS_RECOVERY_STRATEGY_REGISTRY = _Registry(
    failover=RecoveryStrategy("failover", "the same cloud and region first (3 tries), then anywhere"),
    eager_next_region=RecoveryStrategy("eager_next_region", "elsewhere first, then anywhere, for as long as it takes"),
)
