"""Between the engine's values, the provider's spelling and EC2's. Pure."""

from __future__ import annotations

from typing import Any

from google.protobuf import json_format, struct_pb2

__all__ = ["UNKNOWN", "camel", "clean", "dump", "load", "pascal", "tag_dict", "tag_list", "words"]

_SIGNATURE = "4dabf18193072939515e22adb298388d"
_SECRET = "1b47061264138c4ac30d75fd1eb44270"
#: How the engine writes a value that is not known yet, during a preview.
UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"

Properties = dict[str, Any]


def load(struct: struct_pb2.Struct) -> Properties:
    """Plain Python: whole numbers as ints, secrets opened (`Configure` gets them whatever the provider announces)."""
    return _plain(json_format.MessageToDict(struct))


def _plain(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        if value.get(_SIGNATURE) == _SECRET:
            return _plain(value["value"])
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return value


def dump(properties: Properties) -> struct_pb2.Struct:
    struct = struct_pb2.Struct()
    json_format.ParseDict(properties, struct)
    return struct


def pascal(value: Any) -> Any:
    """``{volumeSize: 8}`` -> ``{VolumeSize: 8}``, EC2's spelling; None is left out."""
    if isinstance(value, dict):
        return {key[:1].upper() + key[1:]: pascal(inner) for key, inner in value.items() if inner is not None}
    return [pascal(inner) for inner in value] if isinstance(value, list) else value


def camel(value: Any) -> Any:
    """The way back."""
    if isinstance(value, dict):
        return {key[:1].lower() + key[1:]: camel(inner) for key, inner in value.items()}
    return [camel(inner) for inner in value] if isinstance(value, list) else value


def tag_list(tags: Properties | None) -> list[dict[str, str]]:
    return [{"Key": key, "Value": str(value)} for key, value in (tags or {}).items()]


def tag_dict(tags: list[dict[str, str]] | None) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in tags or [] if not tag["Key"].startswith("aws:")}


def clean(properties: Properties) -> Properties:
    """Without what is None."""
    return {key: value for key, value in properties.items() if value is not None}


def words(text: str) -> tuple[str, ...]:
    """For the provider's long lists of names."""
    return tuple(text.split())
