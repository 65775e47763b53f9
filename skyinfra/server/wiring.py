"""Where the real launcher, channels and clouds are plugged in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from skyinfra import channels
from skyinfra.channels import ssh
from skyinfra.channels.ssh_target import SshFailed, SshTarget
from skyinfra.server.services import Services
from skyinfra.server.settings import Settings
from skyinfra.stacks.clouds.registry import Cloud, Reachable, open_clouds
from skyinfra.stacks.launcher import Launcher

__all__ = ["production"]


def production(settings: Settings) -> Services:
    clouds = open_clouds(settings.home)
    ssh.configure(settings.home, lambda channel: _locate(clouds, channel))
    return Services(settings, Launcher(settings.home), channels.connect, clouds)


def _locate(clouds: Mapping[str, Cloud], channel: dict[str, Any]) -> SshTarget:
    """Where the machine of an ssh channel is now, by the word of its cloud. Raises `SshFailed`."""
    cloud = clouds.get(channel.get("cloud", ""))
    if not isinstance(cloud, Reachable):
        raise SshFailed(f"cloud {channel.get('cloud')} has no machines that are reached over SSH", fatal=True)
    return cloud.locate(channel)
