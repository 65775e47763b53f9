"""What a server is told at its start: defaults < environment < flags. Only this module reads the environment."""

from __future__ import annotations

import getpass
import hashlib
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from skyinfra.model.home import Home
from skyinfra.server.blobs import Limits

__all__ = ["Settings"]

DEFAULT_PORT = 46590
DEFAULT_WORKSPACE = "default"
DAY_S = 86400.0


@dataclass(frozen=True)
class Settings:
    home: Home
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    deploy: bool = False
    """For a team: people have its address, so it listens there or not at all."""
    database_url: str = ""
    user_id: str = ""
    user_name: str = ""
    minute_s: float = 60.0
    """How long a minute of idleness lasts; tests shorten it."""
    retry_s: float = 30.0
    """Between two rounds of `--retry-until-up`."""
    shutdown_grace_s: float = 10.0
    lease_s: float = 10.0
    """How long the acting server of a database may be silent before another takes over."""
    retention_s: float = 30 * DAY_S
    retention_bytes: int = 1 << 30
    blob_keep_s: float = DAY_S
    uploads: Limits = field(default_factory=Limits)
    """Of files: `SKYINFRA_UPLOAD_LIMIT_GB` and `SKYINFRA_UPLOAD_STORE_GB`."""
    history_s: float = 365 * DAY_S
    """How long the history of a cluster that is gone is kept."""

    @classmethod
    def build(
        cls,
        env: Mapping[str, str] = os.environ,
        host: str | None = None,
        port: int | None = None,
        deploy: bool = False,
    ) -> Settings:
        home = Home.from_env(env)
        name = env.get("USER") or getpass.getuser()
        return cls(
            home=home,
            host="0.0.0.0" if deploy and host in (None, "127.0.0.1") else host or "127.0.0.1",
            deploy=deploy,
            port=DEFAULT_PORT if port is None else port,
            database_url=env.get("SKYINFRA_DB_URL") or f"sqlite:///{home.database}",
            user_id=env.get("SKYPILOT_USER_ID") or _user_hash(name),
            user_name=env.get("SKYPILOT_USER") or name,
            minute_s=float(env.get("SKYINFRA_MINUTE_S") or 60.0),
            retry_s=float(env.get("SKYINFRA_RETRY_S") or 30.0),
            uploads=_limits(env),
        )


def _limits(env: Mapping[str, str]) -> Limits:
    """In GB, of 10^9 bytes. Raises `ValueError` naming the variable."""
    limits = Limits()
    for name, limit in (("SKYINFRA_UPLOAD_LIMIT_GB", "tree_bytes"), ("SKYINFRA_UPLOAD_STORE_GB", "store_bytes")):
        text = env.get(name)
        try:
            figure = float(text) if text else None
        except ValueError:
            figure = -1.0
        if figure is not None and not figure > 0:
            raise ValueError(f"{name}={text!r}: a number of gigabytes is needed")
        if figure is not None:
            limits = replace(limits, **{limit: int(figure * 1e9)})
    return limits


def _user_hash(name: str) -> str:
    """8 hex characters for a login on a host, kept by SkyPilot in a file: reuse it where there is one."""
    kept = Path("~/.sky/user_hash").expanduser()
    try:
        text = kept.read_text().strip()
    except OSError:
        text = ""
    if len(text) == 8 and all(c in "0123456789abcdef" for c in text):
        return text
    return hashlib.md5(f"{name}@{socket.gethostname()}".encode(), usedforsecurity=False).hexdigest()[:8]
