"""Configuration from files and from words of a command line: read, checked, and refused with its place.

A file is one YAML map; a word is a file's path or `a.b=value`, where the value is YAML (`true`, `[a, b]`) and several
pairs may stand in one word, separated by commas.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any

from skyinfra.model.config import Config, check_config, merged
from skyinfra.model.exceptions import InvalidSkyPilotConfigError

__all__ = ["config_of_words", "read_config_file"]

_PAIR = re.compile(r"[A-Za-z_][\w-]*(\.[\w-]+)*=")
_NEXT_PAIR = re.compile(r",(?=[A-Za-z_][\w-]*(?:\.[\w-]+)*=)")


def read_config_file(path: str | os.PathLike[str]) -> Config:
    """A file's configuration; an empty file is an empty one.

    Raises `InvalidSkyPilotConfigError` with `FILE:LINE:COL` for each problem, `OSError` when it cannot be read.
    """
    from skyinfra.model.yaml_file import read_yaml_file

    source = read_yaml_file(path)
    documents = [(number, one) for number, one in enumerate(source.documents) if one is not None]
    if len(documents) > 1:
        raise InvalidSkyPilotConfigError(f"{source.name}: holds {len(documents)} documents; a configuration is one")
    number, config = documents[0] if documents else (0, {})
    with source.locating(number):
        check_config(config)
    return Config.from_dict(config)


def config_of_words(words: Sequence[str]) -> Config:
    """What the words of `--config` say together, later ones over earlier ones.

    Raises `ValueError` for a word that is neither a file nor a pair, and as `read_config_file`.
    """
    return merged(*(_of_word(word) for word in words))


def _of_word(word: str) -> Config:
    path = os.path.expanduser(word)
    if os.path.isfile(path) or not _PAIR.match(word):
        if not os.path.isfile(path):
            raise ValueError(f"--config {word}: neither a file nor of the form a.b=value")
        return read_config_file(path)
    out = Config()
    nested = any(bracket in word for bracket in "[{'\"")  # a comma in there may belong to a value
    for pair in [word] if nested else _NEXT_PAIR.split(word):
        name, _, text = pair.partition("=")
        out.set_nested(name.split("."), _value(word, text))
    try:
        check_config(out)
    except InvalidSkyPilotConfigError as error:
        raise InvalidSkyPilotConfigError(f"--config {word}: {str(error).partition(': ')[2] or error}") from None
    return out


def _value(word: str, text: str) -> Any:
    from skyinfra.model.yaml_file import read_yaml_str

    documents = read_yaml_str(text, f"--config {word}").documents
    return documents[0] if documents else None
