"""What `model` may ask of a catalog (its `Offers` protocol): the price of a settled node, and whether a wish fits.

`set_offers(CatalogOffers())` makes `Resources.get_cost` work. Cheap to import and to make, for the package's entry does
both: the catalog and its modules are loaded at the first question.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from skyinfra.catalog.catalog import Catalog
    from skyinfra.model.resources import Resources

__all__ = ["CatalogOffers"]


class CatalogOffers:
    """`skyinfra.model.offers.Offers` over a catalog. `load` None = that of this process's state folder."""

    def __init__(self, load: Callable[[], Catalog] | None = None) -> None:
        self._load = load
        self._catalog: Catalog | None = None

    @property
    def catalog(self) -> Catalog:
        """The catalog; loaded once."""
        if self._catalog is None:
            from skyinfra.catalog.catalog import Catalog

            self._catalog = (self._load or Catalog.default)()
        return self._catalog

    def price(self, resources: Resources) -> float:
        """Dollars per hour of one node: the cheapest place that the resources leave open.

        Raises `ValueError` when nothing is offered that way, or its price is not known.
        """
        from skyinfra.catalog.ask import asks_of

        prices = [
            hourly
            for ask in asks_of(resources)
            for offer in self.catalog.fits(ask)
            if (hourly := offer.hourly(ask.spot)) is not None
        ]
        if not prices:
            raise ValueError(f"no price is known for {resources}")
        return min(prices)

    def fits(self, resources: Resources) -> bool:
        """Whether it could be had somewhere now."""
        from skyinfra.catalog.candidates import candidates_of

        return bool(candidates_of(self.catalog, [resources]))
