"""From a host of a pool to where SSH finds it: `SshTarget`s, resolved anew each time, never kept."""

from __future__ import annotations

from skyinfra.channels.ssh_target import SshTarget
from skyinfra.model.home import Home
from skyinfra.model.ssh_pools import PoolHost

__all__ = ["target_of"]


def target_of(home: Home, host: PoolHost) -> SshTarget:
    """What the file says; what it does not say, the connection asks ``~/.ssh/config`` for."""
    return SshTarget(
        host=host.address,
        port=host.port,
        user=host.user,
        identity_file=host.identity_file,
        password=host.password.get_secret_value() if host.password else None,
        proxy_jump=tuple(_hop(hop) for hop in host.proxy_jump),
        known_hosts=home.known_hosts,
    )


def _hop(text: str) -> SshTarget:
    user, _, rest = text.rpartition("@")
    host, _, port = rest.partition(":")
    return SshTarget(host=host, port=int(port) if port else None, user=user or None)
