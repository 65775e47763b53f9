"""The user's own prices: `$SKYINFRA_HOME/catalog/overrides.yaml`, a list of rules applied in order.

    - {cloud: aws, multiplier: 0.82}                                  # a negotiated discount on everything
    - {cloud: gcp, instance_type: a3-ultragpu-8g, price: 84.8}        # a price that the shipped data lacks
    - {cloud: aws, instance_type: p5.48xlarge, region: us-east-1, spot_price: 21.5}

A rule needs `cloud` and at least one of `price`, `spot_price`, `multiplier`; `instance_type` and `region` narrow it.
A later rule sees what earlier ones made. A rule never adds an offer: what is sold where stays the catalog's word.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from skyinfra.catalog.offers import Offer
from skyinfra.model.exceptions import InvalidSkyPilotConfigError

__all__ = ["Overrides", "Rule"]

_NAMES = ("cloud", "instance_type", "region")
_AMOUNTS = ("price", "spot_price", "multiplier")


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of the file. None = any, or unchanged."""

    cloud: str
    instance_type: str | None = None
    region: str | None = None
    price: float | None = None
    spot_price: float | None = None
    multiplier: float | None = None

    def covers(self, offer: Offer) -> bool:
        """Whether the rule is about this offer."""
        return (
            offer.cloud == self.cloud
            and self.instance_type in (None, offer.instance_type)
            and self.region in (None, offer.region)
        )

    def apply(self, offer: Offer) -> Offer:
        """The offer at the rule's prices; an unknown price stays unknown under a multiplier."""
        price = offer.price if self.price is None else self.price
        spot = offer.spot_price if self.spot_price is None else self.spot_price
        if self.multiplier is not None:
            price = None if price is None else price * self.multiplier
            spot = None if spot is None else spot * self.multiplier
        return replace(offer, price=price, spot_price=spot)


@dataclass(frozen=True, slots=True)
class Overrides:
    """All rules, in their order."""

    rules: tuple[Rule, ...]

    @classmethod
    def read(cls, path: Path) -> Overrides:
        """The rules of a file; an empty file has none. Raises `InvalidSkyPilotConfigError` naming file and rule."""
        import yaml

        try:
            loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as exc:
            raise InvalidSkyPilotConfigError(f"{path}: not YAML: {exc}") from exc
        if loaded is None:
            return cls(())
        if not isinstance(loaded, list):
            raise InvalidSkyPilotConfigError(f"{path}: expected a list of rules, found {type(loaded).__name__}")
        return cls(tuple(_rule(path, number, entry) for number, entry in enumerate(loaded, 1)))

    def apply(self, offers: Iterable[Offer]) -> list[Offer]:
        """The offers at the user's prices."""
        changed = []
        for offer in offers:
            for rule in self.rules:
                if rule.covers(offer):
                    offer = rule.apply(offer)
            changed.append(offer)
        return changed


def _rule(path: Path, number: int, entry: Any) -> Rule:
    where = f"{path}: rule {number}"
    if not isinstance(entry, dict):
        raise InvalidSkyPilotConfigError(f"{where}: expected a map, found {type(entry).__name__}")
    if unknown := [key for key in entry if key not in (*_NAMES, *_AMOUNTS)]:
        raise InvalidSkyPilotConfigError(f"{where}: unknown key {unknown[0]!r}; known: {', '.join(_NAMES + _AMOUNTS)}")
    for key in _NAMES:
        if key in entry and not isinstance(entry[key], str):
            raise InvalidSkyPilotConfigError(f"{where}: {key} must be a string")
    for key in _AMOUNTS:
        value = entry.get(key, 0)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
            raise InvalidSkyPilotConfigError(f"{where}: {key} must be a number that is not negative")
    if "cloud" not in entry or not any(key in entry for key in _AMOUNTS):
        raise InvalidSkyPilotConfigError(f"{where}: needs cloud, and one of {', '.join(_AMOUNTS)}")
    return Rule(**{**entry, "cloud": entry["cloud"].lower()})
