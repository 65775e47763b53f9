"""The version handshake of the HTTP API: which header says what, and which clients a server still understands."""

from __future__ import annotations

API_VERSION = 1
MIN_API_VERSION = 1

API_HEADER = "x-skyinfra-api"
VERSION_HEADER = "x-skyinfra-version"
IDEMPOTENCY_HEADER = "idempotency-key"

PRODUCT_VERSION = "0.1.0"


def client_too_old(header: str | None) -> bool:
    """Whether a client that sent this `X-Skyinfra-Api` must be refused. A client that says nothing is served."""
    if header is None:
        return False
    try:
        return int(header) < MIN_API_VERSION
    except ValueError:
        return True
