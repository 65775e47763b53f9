"""The server's own configuration, `config.yaml` of its state folder, and what a request runs under.

The file is looked at with every request that depends on it and read again when it has changed, so that an edit needs
no restart.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from skyinfra.model.config import Config, effective
from skyinfra.model.config_file import read_config_file
from skyinfra.model.exceptions import NotSupportedError, with_hint

__all__ = ["ServerConfig"]


class ServerConfig:
    """Every call may read the file: run it in a thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._config = Config()

    def current(self) -> Config:
        """The file as it is now; empty without one.

        Raises `InvalidSkyPilotConfigError` with the place of what is wrong, `NotSupportedError` for an `admin_policy`:
        a rule that is not applied must not look as if it were.
        """
        try:
            about = self._path.stat()
        except FileNotFoundError:
            self._seen, self._config = None, Config()
            return self._config
        seen = (about.st_mtime_ns, about.st_size, about.st_ino)
        if seen != self._seen:
            config = read_config_file(self._path)
            if config.get("admin_policy"):
                raise with_hint(
                    NotSupportedError(f"{self._path}: admin_policy is not applied by skyinfra yet"),
                    "remove it; requests are refused as long as it is there, so that none escapes it",
                )
            self._seen, self._config = seen, config
        return self._config

    def of_request(self, body: Mapping[str, Any], task: Mapping[str, Any] | None = None) -> Config:
        """What a request runs under; `task` is a task's `config`. Raises as `current` and `model.config.effective`."""
        return effective(self.current(), body.get("config"), task)
