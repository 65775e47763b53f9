"""What moving data between clouds costs and how long it takes: public internet list prices, by tier.

Inside one cloud it is free. A cloud without a row (the local machine, an ssh pool, Kubernetes) charges nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["cloud_of_uri", "egress_cost", "transfer_s"]

_GBIT_PER_S = 10.0

#: (up to so many GB in all, USD per GB of the whole); the last tier has no end.
_TIERS: dict[str, Sequence[tuple[float, float]]] = {
    "aws": ((10 * 1024, 0.09), (50 * 1024, 0.085), (150 * 1024, 0.07), (float("inf"), 0.05)),
    "gcp": ((1024, 0.12), (10 * 1024, 0.11), (float("inf"), 0.08)),
    "azure": ((10 * 1024, 0.0875), (50 * 1024, 0.083), (150 * 1024, 0.07), (float("inf"), 0.05)),
}


def cloud_of_uri(uri: str) -> str | None:
    """The cloud whose egress is paid for reading a URI; None for a place that charges none, or is not known."""
    if uri.startswith("https://") and ".blob.core.windows.net" in uri.partition("//")[2].partition("/")[0]:
        return "azure"
    return {"s3": "aws", "gs": "gcp"}.get(uri.partition("://")[0])


def egress_cost(source: str | None, target: str | None, gigabytes: float) -> float:
    """USD for moving data out of a cloud. An unknown end costs nothing: there is nothing to reckon with."""
    if source is None or target is None or source == target or gigabytes <= 0:
        return 0.0
    rate = next((rate for limit, rate in _TIERS.get(source, ()) if gigabytes <= limit), 0.0)
    return rate * gigabytes


def transfer_s(source: str | None, target: str | None, gigabytes: float) -> float:
    """Seconds for moving data between clouds at 10 Gb/s."""
    if source is None or target is None or source == target or gigabytes <= 0:
        return 0.0
    return gigabytes * 8 / _GBIT_PER_S
