"""`RequestId`: the name of a request, and the type of what it will yield."""

from __future__ import annotations

from typing import Generic, TypeVar

__all__ = ["RequestId"]

T = TypeVar("T")


class RequestId(str, Generic[T]):
    """A request's id: a plain string everywhere, with `RequestId[T]` saying what `get` returns.

    Compares, hashes, pickles and serialises as the string it is.
    """

    __slots__ = ()
