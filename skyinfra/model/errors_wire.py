"""How an exception crosses a wire: `to_wire` makes plain JSON of it, `from_wire` the same exception again.

The form is `{type, message, args, attributes, hint, detail}`. Ours and Python's own classes come back as they were;
any other (a cloud SDK's, a database driver's) comes back as `CloudError`, because the reader may not have it. An
exception is rebuilt without calling its `__init__`, so a class may gain a parameter without breaking old peers.
"""

from __future__ import annotations

import builtins
import enum
from collections.abc import Mapping
from typing import Any

from skyinfra.model import exceptions

__all__ = ["from_wire", "to_wire"]

_DEPTH = 4  # exceptions inside exceptions (failover_history); deeper ones become their text


def to_wire(exc: BaseException, _depth: int = 0) -> dict[str, Any]:
    """A JSON value that says all that can be said of `exc`. Never raises for want of a JSON form: text stands in."""
    hidden = isinstance(exc, exceptions.SkyPilotExcludeArgsBaseException)
    attributes = {
        k: _plain(v, _depth) for k, v in vars(exc).items() if not k.startswith("_") and k not in ("hint", "detail")
    }
    return {
        "type": _public_name(exc),
        "message": _text(exc),
        "args": [] if hidden else [_plain(a, _depth) for a in exc.args],
        "attributes": attributes,
        "hint": _optional_text(getattr(exc, "hint", None)),
        "detail": _optional_text(getattr(exc, "detail", None)),
    }


def from_wire(value: Mapping[str, Any]) -> Exception:
    """The exception that `to_wire` was given, or a `CloudError` when its class is not one that this side knows.

    Anything that is not an error value at all becomes a `RuntimeError` with what came.
    """
    name = value.get("type") if isinstance(value, Mapping) else None
    if not isinstance(name, str):
        return RuntimeError(f"not an error value: {value!r}")
    message = str(value.get("message") or "")
    kind = _known(name)
    if kind is None:
        exc: Exception = exceptions.CloudError(message, error_type=name)
    else:
        exc = kind.__new__(kind)
        args = [_rebuilt(a) for a in value.get("args") or []]
        exc.args = tuple(args) if args else ((message,) if message else ())
        attributes = value.get("attributes")
        for key, raw in attributes.items() if isinstance(attributes, Mapping) else ():
            if isinstance(key, str) and not key.startswith("_"):
                _set(exc, key, _rebuilt(raw))
    return exceptions.with_hint(exc, value.get("hint"), value.get("detail"))


def _public_name(exc: BaseException) -> str:
    """The class's name; for one of ours that is not public, that of the public class which it refines."""
    for kind in type(exc).__mro__:
        if _known(kind.__name__) is kind or not kind.__module__.startswith("skyinfra."):
            return kind.__name__
    return type(exc).__name__


def _known(name: str) -> type[Exception] | None:
    found = getattr(exceptions, name, None) or getattr(builtins, name, None)
    if isinstance(found, type) and issubclass(found, Exception):
        return found
    return None


def _set(exc: Exception, key: str, value: Any) -> None:
    try:
        setattr(exc, key, value)
    except (AttributeError, TypeError):
        pass  # a builtin's read-only slot (UnicodeDecodeError.start): the message has said it already


def _text(exc: BaseException) -> str:
    try:
        return str(exc)
    except Exception:  # a foreign __str__ may itself fail; the class is then all there is to say
        return type(exc).__name__


def _optional_text(value: Any) -> str | None:
    return None if value is None else str(value)


def _plain(value: Any, depth: int) -> Any:
    if value is None or (isinstance(value, (bool, int, float, str)) and not isinstance(value, enum.Enum)):
        return value
    if isinstance(value, enum.Enum):
        return {"__enum__": type(value).__qualname__, "name": value.name}
    if depth >= _DEPTH:
        return str(value)
    if isinstance(value, BaseException):
        return {"__error__": to_wire(value, depth + 1)}
    if isinstance(value, Mapping):
        return {str(k): _plain(v, depth + 1) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(v, depth + 1) for v in value]
    to_json = getattr(value, "to_json", None)
    if callable(to_json):
        return {"__value__": type(value).__name__, "json": to_json()}
    return str(value)


def _rebuilt(value: Any) -> Any:
    if isinstance(value, list):
        return [_rebuilt(v) for v in value]
    if not isinstance(value, Mapping):
        return value
    if "__error__" in value:
        return from_wire(value["__error__"])
    if "__enum__" in value:
        return _rebuilt_enum(str(value["__enum__"]), value.get("name"))
    if value.get("__value__") == "ClusterHandle":
        from skyinfra.model.handles import ClusterHandle

        return ClusterHandle.from_json(value.get("json"))
    if "__value__" in value:
        return value.get("json")
    return {k: _rebuilt(v) for k, v in value.items()}


def _rebuilt_enum(qualname: str, name: Any) -> Any:
    from skyinfra.model import states

    found: Any = None
    for module in (states, exceptions):
        found = module
        for part in qualname.split("."):
            found = getattr(found, part, None)
        if isinstance(found, type) and issubclass(found, enum.Enum):
            return found.__members__.get(name, name)
    return name
