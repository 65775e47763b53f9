"""The client's layers of configuration: the user's file, the project's file, and what the command line adds.

Files are read when they are first needed and once per process; `reload_config` reads them again. Where there is no file
nothing is read, and nothing is imported for it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from skyinfra.model.home import Home

if TYPE_CHECKING:
    from skyinfra.model.config import Config

__all__ = ["project_file", "reload_config", "sent", "setting", "use_words", "user_file"]

USER_VARIABLES = ("SKYINFRA_GLOBAL_CONFIG", "SKYPILOT_GLOBAL_CONFIG")
PROJECT_VARIABLES = ("SKYINFRA_PROJECT_CONFIG", "SKYPILOT_PROJECT_CONFIG")
PROJECT_FILES = (".skyinfra.yaml", ".sky.yaml")

_words: tuple[str, ...] = ()
_layers: dict[str, Config] | None = None


def user_file() -> str | None:
    """The user's file: the one that the environment names, else `config.yaml` of the state folder, if it is there.

    Raises `FileNotFoundError` when the environment names a file that is not there.
    """
    return _named(USER_VARIABLES) or _existing(str(Home.from_env().config))


def project_file() -> str | None:
    """The project's file: the one that the environment names, else `.skyinfra.yaml` or `.sky.yaml` in this folder.

    Raises as `user_file`.
    """
    return _named(PROJECT_VARIABLES) or next((name for name in PROJECT_FILES if os.path.isfile(name)), None)


def use_words(words: Sequence[str] | None) -> None:
    """Let the words of `--config` rule over everything else in this process. Raises as `config_of_words`."""
    global _words, _layers
    if words:
        _words, _layers = tuple(words), None
        _read()


def reload_config() -> None:
    """Read the files again. Raises `InvalidSkyPilotConfigError` naming file, line and column of what is wrong."""
    global _layers
    _layers = None
    _read()


def sent() -> dict[str, Any]:
    """The part of a request's body that carries the layers: `{}` without any, and never what is the server's to say."""
    layers = _read()
    if not layers:
        return {}
    from skyinfra.model.config import from_client

    kept = {name: dict(config) for name, layer in layers.items() if (config := from_client(layer))}
    return {"config": kept} if kept else {}


def setting(keys: Sequence[str], default: Any = None) -> Any:
    """A value of the client's own layers, the highest that has it."""
    layers = _read()
    if not layers:
        return default
    from skyinfra.model.config import merged

    return merged(*layers.values()).get_nested(keys, default)


def _read() -> dict[str, Config]:
    """The layers that there are, low to high."""
    global _layers
    if _layers is not None:
        return _layers
    files = {"user": user_file(), "project": project_file()}
    layers: dict[str, Config] = {}
    if _words or any(files.values()):
        from skyinfra.model.config_file import config_of_words, read_config_file

        layers = {name: read_config_file(path) for name, path in files.items() if path is not None}
        if _words:
            layers["command_line"] = config_of_words(_words)
    _layers = layers
    return layers


def _named(variables: Sequence[str]) -> str | None:
    for variable in variables:
        path = os.environ.get(variable)
        if not path:
            continue
        if _existing(path) is None:
            raise FileNotFoundError(f"{variable} names {path}, which is no file")
        return os.path.expanduser(path)
    return None


def _existing(path: str) -> str | None:
    return path if os.path.isfile(os.path.expanduser(path)) else None
