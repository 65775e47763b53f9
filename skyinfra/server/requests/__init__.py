"""The request engine: see `engine` for how one runs, `steps` for what one is made of."""

from skyinfra.server.requests.steps import boundaries

__all__ = ["boundaries"]
