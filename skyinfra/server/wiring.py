"""Where the real launcher, channels and clouds are plugged in."""

from __future__ import annotations

from skyinfra import channels
from skyinfra.server.services import Services
from skyinfra.server.settings import Settings
from skyinfra.stacks.clouds.registry import open_clouds
from skyinfra.stacks.launcher import Launcher

__all__ = ["production"]


def production(settings: Settings) -> Services:
    return Services(settings, Launcher(settings.home), channels.connect, open_clouds(settings.home))
