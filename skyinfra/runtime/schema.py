"""The wire types as JSON Schema, made from the dataclasses: ``python -m skyinfra.runtime.schema`` writes the file.

The same reading of the annotations checks what a peer sent (`checked`), so that schema and agent cannot disagree.
"""

import dataclasses
import json
import os
from typing import Any, Dict, List, Type, TypeVar, Union, get_args, get_origin, get_type_hints

from skyinfra.runtime import protocol

T = TypeVar("T")
TYPES = (
    protocol.Health,
    protocol.NodeConfig,
    protocol.FilesApply,
    protocol.FilesMissing,
    protocol.GitCheckout,
    protocol.GitState,
    protocol.JobSubmit,
    protocol.JobRow,
    protocol.Event,
    protocol.Frame,
    protocol.RankOrder,
    protocol.RankState,
)
ERRORS = (
    "unauthorized",
    "not_found",
    "bad_request",
    "draining",
    "claimed",
    "digest",
    "unsafe_path",
    "no_space",
    "git",
    "internal",
)
_SCALARS: Dict[Any, str] = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}
_OTHER: Dict[str, Dict[str, Any]] = {
    "Submitted": {"job_id": {"type": "integer"}},
    "Jobs": {"jobs": {"type": "array", "items": {"$ref": "#/$defs/JobRow"}}},
    "HooksRun": {"done": {"type": "boolean"}},
    "Error": {
        "type": {"enum": list(ERRORS)},
        "message": {"type": "string"},
    },
}


def checked(cls: Type[T], value: Dict[str, Any]) -> T:
    """`protocol.load` of a peer's JSON. Raises `ValueError` naming the field that is missing or of the wrong type."""
    hints = get_type_hints(cls)
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        if field.name in value:
            if not _is(value[field.name], hints[field.name]):
                raise ValueError("{} must be {}".format(field.name, json.dumps(_schema_of(hints[field.name]))))
        elif _required(field):
            raise ValueError("{} is missing".format(field.name))
    return protocol.load(cls, value)


def document() -> Dict[str, Any]:
    """The whole schema; `$defs` has one entry per type. Newer peers may add properties, so none are forbidden."""
    defs: Dict[str, Any] = {cls.__name__: _object(cls) for cls in TYPES}
    for name, properties in _OTHER.items():
        defs[name] = {"type": "object", "properties": properties, "required": list(properties)}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "skyinfra node agent", "$defs": defs}


def text() -> str:
    return json.dumps(document(), indent=1) + "\n"


def _object(cls: Any) -> Dict[str, Any]:
    hints = get_type_hints(cls)
    fields = dataclasses.fields(cls)
    properties = {field.name: _schema_of(hints[field.name]) for field in fields}
    if cls is protocol.JobRow:
        properties["state"] = {"enum": list(protocol.JOB_STATES)}
    # the agent always sends all fields; a request may leave out those with a default
    sent = cls in (protocol.FilesMissing, protocol.GitState, protocol.Health, protocol.JobRow, protocol.Event)
    required = [field.name for field in fields if sent or _required(field)]
    return {"type": "object", "properties": properties, "required": required}


def _required(field: "dataclasses.Field[Any]") -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _schema_of(hint: Any) -> Dict[str, Any]:
    origin, args = get_origin(hint), get_args(hint)
    if hint is Any:
        return {}
    if origin is Union:
        return {"anyOf": [_schema_of(arg) for arg in args]}
    if origin is list:
        return {"type": "array", "items": _schema_of(args[0])}
    if origin is dict:
        return {"type": "object", "additionalProperties": _schema_of(args[1])}
    return {"type": _SCALARS[hint]}


def _is(value: Any, hint: Any) -> bool:
    origin, args = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin is Union:
        return any(_is(value, arg) for arg in args)
    if origin is list:
        return isinstance(value, list) and all(_is(item, args[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(_is(item, args[1]) for item in value.values())
    if hint in (int, float):
        # JSON knows one kind of number; a bool is an int to Python, but not to the wire
        return isinstance(value, (int, hint)) and not isinstance(value, bool)
    return isinstance(value, hint)


def path() -> str:
    return os.path.join(os.path.dirname(os.path.abspath(protocol.__file__)), "protocol.schema.json")


def main(_: "List[str]") -> int:
    with open(path(), "w") as f:
        f.write(text())
    print(path())
    return 0


if __name__ == "__main__":
    main([])
