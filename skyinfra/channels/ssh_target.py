"""Where an SSH connection goes, as a value; and what ``~/.ssh/config`` adds to it.

Says nothing of how one connects: that is `ssh_connection`.
"""

from __future__ import annotations

import getpass
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

__all__ = ["SshFailed", "SshTarget", "resolve_target"]

DEFAULT_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa")
MAX_HOPS = 8


class SshFailed(Exception):
    """No connection, or it broke. `reason` is for people; `fatal`: trying again later cannot help."""

    def __init__(self, reason: str, *, fatal: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.fatal = fatal


@dataclass(frozen=True)
class SshTarget:
    """A machine to log in to. What is None comes from ``~/.ssh/config``, else SSH's defaults.

    `host` is a name, an address or a ``Host`` of ``~/.ssh/config``. `proxy_jump`: jump hosts, the nearest to us
    first; it goes before the file's. `known_hosts`: our own store of pinned host keys; None = none is checked or kept,
    for tests only. `host_key_name`: the name its key is pinned under; give the machine's id where addresses change
    owners. `use_config=False`: the file is not read. Password and passphrase never show in ``repr``.
    """

    host: str
    port: int | None = None
    user: str | None = None
    identity_file: str | None = None
    password: str | None = field(default=None, repr=False)
    passphrase: str | None = field(default=None, repr=False)
    proxy_jump: tuple[SshTarget, ...] = ()
    proxy_command: str | None = None
    known_hosts: Path | None = None
    host_key_name: str | None = None
    use_config: bool = True

    def to_json(self) -> dict[str, Any]:
        """As `from_json` reads it. Holds password and passphrase: for a pipe or a socket of ours, never for a file."""
        given = {name: value for name, value in vars(self).items() if value is not None}
        given["proxy_jump"] = [hop.to_json() for hop in self.proxy_jump]
        if self.known_hosts is not None:
            given["known_hosts"] = str(self.known_hosts)
        return given

    @classmethod
    def from_json(cls, given: dict[str, Any]) -> SshTarget:
        """Raises `TypeError` or `KeyError` for what is no target."""
        values = dict(given)
        values["proxy_jump"] = tuple(cls.from_json(hop) for hop in values.get("proxy_jump", ()))
        if "known_hosts" in values:
            values["known_hosts"] = Path(values["known_hosts"])
        return cls(**values)


@dataclass(frozen=True)
class ResolvedTarget:
    """Nothing left to look up. `name` is what people call it, `pin` what its host key is kept under."""

    name: str
    host: str
    port: int
    user: str
    identity_files: tuple[str, ...]
    named_identity: bool
    password: str | None = field(repr=False)
    passphrase: str | None = field(repr=False)
    hops: tuple[ResolvedTarget, ...]
    proxy_command: str | None
    known_hosts: Path | None
    pin: str


def resolve_target(target: SshTarget, *, home: Path | None = None) -> ResolvedTarget:
    """Fill in from ``.ssh/config`` in `home`, the user's by default. Raises `SshFailed` (fatal) where that is wrong."""
    folder = (home or Path(os.environ.get("HOME") or Path.home())) / ".ssh"
    return _resolve(target, folder, depth=0)


def _resolve(target: SshTarget, folder: Path, depth: int) -> ResolvedTarget:
    if depth > MAX_HOPS:
        raise SshFailed(
            f"{target.host}: more than {MAX_HOPS} jump hosts; {folder / 'config'} goes in a circle", fatal=True
        )
    found = _look_up(target, folder) if target.use_config else {}
    hops = target.proxy_jump
    command = target.proxy_command
    if not hops and command is None:
        hops = _parse_jump(found.get("proxyjump"), target)
        command = None if hops else _none(found.get("proxycommand"))
    host = found.get("hostname", target.host)
    port = target.port or int(found.get("port", 22))
    resolved_hops: list[ResolvedTarget] = []
    for hop in hops:
        resolved = _resolve(replace(hop, known_hosts=hop.known_hosts or target.known_hosts), folder, depth + 1)
        resolved_hops += [*resolved.hops, resolved]
    named = target.identity_file is not None or "identityfile" in found
    files = (target.identity_file,) if target.identity_file else tuple(found.get("identityfile", ()))
    return ResolvedTarget(
        name=target.host,
        host=host,
        port=port,
        user=target.user or found.get("user") or getpass.getuser(),
        identity_files=tuple(os.path.expanduser(file) for file in files)
        or tuple(str(folder / name) for name in DEFAULT_KEYS if (folder / name).exists()),
        named_identity=named,
        password=target.password,
        passphrase=target.passphrase,
        hops=tuple(resolved_hops),
        proxy_command=command,
        known_hosts=target.known_hosts,
        pin=target.host_key_name or _pin(host, port, resolved_hops),
    )


def _pin(host: str, port: int, hops: list[ResolvedTarget]) -> str:
    """As OpenSSH writes it; a private address means another machine behind another jump host, so that is named too."""
    here = host if port == 22 else f"[{host}]:{port}"
    return f"{here}/{hops[-1].pin}" if hops else here


def _look_up(target: SshTarget, folder: Path) -> dict[str, Any]:
    path = folder / "config"
    if not path.exists():
        return {}
    from paramiko import SSHConfig
    from paramiko.ssh_exception import ConfigParseError, CouldNotCanonicalize

    try:
        return dict(SSHConfig.from_path(str(path)).lookup(target.host))
    except (OSError, UnicodeDecodeError, ConfigParseError, CouldNotCanonicalize, ImportError) as exc:
        raise SshFailed(f"{path}: {exc}", fatal=True) from exc


def _none(value: str | None) -> str | None:
    return None if value is None or value.lower() == "none" else value


def _parse_jump(text: str | None, target: SshTarget) -> tuple[SshTarget, ...]:
    """``ProxyJump user@a:2222,b``."""
    hops = []
    for word in (_none(text) or "").split(","):
        if not (word := word.strip()):
            continue
        user, _, place = word.removeprefix("ssh://").rpartition("@")
        host, port = place, None
        if place.startswith("[") and "]" in place:
            host, _, rest = place[1:].partition("]")
            port = rest.removeprefix(":") or None
        elif place.count(":") == 1:
            host, _, port = place.partition(":")
        hops.append(SshTarget(host, int(port) if port else None, user or None, known_hosts=target.known_hosts))
    return tuple(hops)
