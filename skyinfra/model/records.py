"""`Record`: what status, queue and the other listings return: a dict whose keys are attributes too.

It is a real dict, so iteration, `.get`, JSON and pickling work as users of either form expect.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["Record"]


class Record(dict[str, Any]):
    """A dict with attribute access. A key that a dict method shadows (`items`, `keys`) is reached by `[]`."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"this record has no field {name!r}; it has {', '.join(self)}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __delattr__(self, name: str) -> None:
        try:
            del self[name]
        except KeyError:
            raise AttributeError(name) from None

    def __repr__(self) -> str:
        return f"Record({', '.join(f'{k}={v!r}' for k, v in self.items())})"

    def __dir__(self) -> Iterable[str]:
        return [*super().__dir__(), *self]

    def __reduce__(self) -> Any:
        return (Record, (dict(self),))

    def copy(self) -> Record:
        return Record(self)

    def model_dump(self) -> dict[str, Any]:
        """A plain dict; the name is what users of pydantic models call."""
        return dict(self)

    @classmethod
    def model_validate(cls, value: Mapping[str, Any]) -> Record:
        """A record of any mapping."""
        return cls(value)
