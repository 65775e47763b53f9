"""Checks a value against a schema in the JSON Schema dialect that `schema` is written in, and says all that is wrong.

A subset on purpose: type, enum, properties, patternProperties, additionalProperties, required, items, anyOf, bounds,
lengths, pattern. Ours are: `anyCase` (an enum whose
spelling may vary in case), `anyKey` (keys that are not text are fine) and the formats `infra` and `cloud`. Unlike a
general validator it answers in the user's words, with the key that was probably meant.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from skyinfra.model.problems import Path, Problem, closest

__all__ = ["FORMATS", "check", "json_value"]

Schema = Mapping[str, Any]

FORMATS: dict[str, Callable[[str], str | None]] = {}
"""Format name → what is wrong with a text, or None. `clouds` adds `infra`."""

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list, tuple, set, frozenset),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}
_WORDS = {
    "object": "a map",
    "array": "a list",
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "null": "nothing",
}


def check(value: Any, schema: Schema, path: Path = ()) -> Iterator[Problem]:
    """Every problem of `value`, outermost first."""
    if "anyOf" in schema:
        yield from _any_of(value, schema, path)
        return
    wanted = _types(schema)
    if wanted and not any(_is(value, t) for t in wanted):
        words = [_WORDS[t] for t in wanted if t != "null"] or [_WORDS["null"]]
        yield Problem(path, f"expected {_either(words)}, found {_found(value)}")
        return
    if value is None:
        return
    if isinstance(value, dict):
        yield from _object(value, schema, path)
    elif isinstance(value, (list, tuple, set, frozenset)):
        yield from _array(value, schema, path)
    elif isinstance(value, str):
        yield from _string(value, schema, path)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield from _number(value, schema, path)
    if "enum" in schema and value not in schema["enum"]:
        yield Problem(path, _not_one_of(value, schema["enum"]))


def _types(schema: Schema) -> list[str]:
    kind = schema.get("type", [])
    return [kind] if isinstance(kind, str) else list(kind)


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    return isinstance(value, _TYPES[kind])


def _any_of(value: Any, schema: Schema, path: Path) -> Iterator[Problem]:
    """Of several forms, the problems of the one whose type fits: those of the others would only confuse."""
    best: list[Problem] | None = None
    words: list[str] = []
    for branch in schema["anyOf"]:
        kinds = _types(branch)
        words += [_WORDS[k] for k in kinds if k != "null"]
        if kinds and not any(_is(value, k) for k in kinds):
            continue
        found = list(check(value, branch, path))
        if not found:
            return
        if best is None or len(found) < len(best):
            best = found
    if best is None:
        best = [Problem(path, f"expected {_either(list(dict.fromkeys(words)))}, found {_found(value)}")]
    yield from best


def _object(value: dict[Any, Any], schema: Schema, path: Path) -> Iterator[Problem]:
    properties: Mapping[str, Schema] = schema.get("properties", {})
    patterns: Mapping[str, Schema] = schema.get("patternProperties", {})
    rest = schema.get("additionalProperties", True)
    title = schema.get("title", "this map")
    for key in schema.get("required", []):
        if key not in value:
            yield Problem(path, f"{title} needs the key {key!r}")
    for key, item in value.items():
        here = (*path, key)
        if not isinstance(key, str) and not schema.get("anyKey"):
            yield Problem(here, f"the key {key!r} must be text: quote it", True)
            continue
        if key in properties:
            yield from check(item, properties[key], here)
            continue
        matching = [s for p, s in patterns.items() if isinstance(key, str) and re.search(p, key)]
        if matching:
            yield from check(item, matching[0], here)
        elif rest is False:
            yield Problem(here, _unknown_key(key, title, [k for k in properties if k[0] != "_"], schema), True)
        elif isinstance(rest, Mapping):
            yield from check(item, rest, here)


def _unknown_key(key: Any, title: str, known: list[str], schema: Schema) -> str:
    if schema.get("patternProperties"):
        return f"{key!r} is not a name that {title} may have"
    meant = closest(key, known)
    if meant:
        return f"unknown key {key!r} in {title}; did you mean {meant!r}?"
    return f"unknown key {key!r} in {title}; it may have: {', '.join(known)}"


def _array(value: Any, schema: Schema, path: Path) -> Iterator[Problem]:
    if len(value) < schema.get("minItems", 0):
        yield Problem(path, f"needs at least {schema['minItems']} entries")
    if len(value) > schema.get("maxItems", len(value)):
        yield Problem(path, f"has {len(value)} entries; at most {schema['maxItems']} are allowed")
    if "items" in schema:
        for index, item in enumerate(value):
            yield from check(item, schema["items"], (*path, index))


def _string(value: str, schema: Schema, path: Path) -> Iterator[Problem]:
    if "anyCase" in schema and value.lower() not in {str(v).lower() for v in schema["anyCase"]}:
        yield Problem(path, _not_one_of(value, schema["anyCase"]))
    if len(value) < schema.get("minLength", 0):
        yield Problem(path, "may not be empty")
    if len(value) > schema.get("maxLength", len(value)):
        yield Problem(path, f"is {len(value)} characters long; at most {schema['maxLength']} are allowed")
    if "pattern" in schema and not re.search(schema["pattern"], value):
        yield Problem(path, f"{value!r} is not {schema.get('expected', 'of the form ' + schema['pattern'])}")
    if "format" in schema:
        wrong = FORMATS[schema["format"]](value)
        if wrong:
            yield Problem(path, wrong)


def _number(value: float, schema: Schema, path: Path) -> Iterator[Problem]:
    if value < schema.get("minimum", value) or value > schema.get("maximum", value):
        low, high = schema.get("minimum"), schema.get("maximum")
        span = (
            f"from {low} to {high}" if None not in (low, high) else f"{low} or more" if high is None else f"<= {high}"
        )
        yield Problem(path, f"{value} is out of range: {span} is allowed")
    if "exclusiveMinimum" in schema and value <= schema["exclusiveMinimum"]:
        yield Problem(path, f"{value} is out of range: it must be more than {schema['exclusiveMinimum']}")


def _not_one_of(value: Any, allowed: Any) -> str:
    meant = closest(value, [str(a) for a in allowed])
    tail = f"did you mean {meant!r}?" if meant else f"it may be: {', '.join(str(a) for a in allowed)}"
    return f"{value!r} is not allowed here; {tail}"


def _found(value: Any) -> str:
    for kind in ("null", "boolean", "integer", "number", "string", "array", "object"):
        if _is(value, kind):
            if kind in ("object", "array", "null"):
                return _WORDS[kind]
            shown = repr(value)
            return f"{_WORDS[kind]} ({shown if len(shown) <= 40 else shown[:37] + '...'})"
    return type(value).__name__


def _either(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def json_value(value: Any) -> Any:
    """Free-form sections as JSON can carry them: dates become text. Raises `ValueError` for binary data."""
    if isinstance(value, dict):
        return {str(k): json_value(v) for k, v in value.items()}
    if isinstance(value, (list, set)):
        return [json_value(v) for v in value]
    if isinstance(value, bytes):
        raise ValueError("binary data cannot be part of a configuration")
    return value if value is None or isinstance(value, (str, int, float)) else str(value)
