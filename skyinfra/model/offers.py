"""How `model` learns prices without importing `catalog`: a Protocol, set once by the package's entry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from skyinfra.model.resources import Resources

__all__ = ["Offers", "known", "offers", "set_offers"]


class Offers(Protocol):
    """What is on offer, for those who only hold a `Resources`."""

    def price(self, resources: Resources) -> float:
        """Dollars per hour of one node. Raises `ValueError` when no offer is that."""
        ...

    def fits(self, resources: Resources) -> bool:
        """Whether some offer satisfies the request."""
        ...


_current: Offers | None = None


def set_offers(value: Offers | None) -> None:
    """Called by `skyinfra/__init__` when a `Task` or `Resources` is first used; tests set and unset their own."""
    global _current
    _current = value


def known() -> bool:
    """Whether somebody gave a catalog."""
    return _current is not None


def offers() -> Offers:
    """Raises `RuntimeError` when no catalog was given."""
    if _current is None:
        raise RuntimeError("prices are not known here: no catalog was loaded")
    return _current
