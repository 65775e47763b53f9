"""Where the real launcher, channels and local cloud are plugged in."""

from __future__ import annotations

from typing import Any

from skyinfra import channels
from skyinfra.model.home import Home
from skyinfra.server.services import Services
from skyinfra.server.settings import Settings
from skyinfra.stacks.clouds.local import facts
from skyinfra.stacks.clouds.local import observe as local
from skyinfra.stacks.launcher import Launcher

__all__ = ["LocalCloud", "production"]


class LocalCloud:
    """The local cloud as the fleet asks about it."""

    def __init__(self, home: Home) -> None:
        self._home = home

    def capacity(self) -> dict[str, Any]:
        return facts.capacity(self._home)

    def observe(self, stack: str | None = None) -> list[dict[str, Any]]:
        return local.observe(self._home, stack)


def production(settings: Settings) -> Services:
    return Services(settings, Launcher(settings.home), channels.connect, LocalCloud(settings.home))
