"""`SecretStr`: a text that does not print itself."""

from __future__ import annotations

__all__ = ["SecretStr"]


class SecretStr:
    """Holds a secret; `get_secret_value` is the only way to its text. Safe in reprs, f-strings and logs."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def get_secret_value(self) -> str:
        return self._value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SecretStr) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __len__(self) -> int:
        return len(self._value)

    def __str__(self) -> str:
        return "**********" if self._value else ""

    def __repr__(self) -> str:
        return f"SecretStr('{self}')"

    def __deepcopy__(self, memo: dict[int, object]) -> SecretStr:
        return self
