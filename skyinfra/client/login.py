"""Logging in to a server: its address and token, kept under ``api_server`` in ``config.yaml`` of the state folder.

Owns that section and nothing else of the file: the rest, comments included, stays as the user wrote it. Every command
reads this, so YAML is only loaded for a file that mentions the section.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, NamedTuple

from skyinfra.model.home import Home

__all__ = ["Kept", "api_login", "api_logout", "kept"]

TOKEN_PREFIX = "sky_"
_SECTION = re.compile(r"^api_server:.*\n?(?:(?:[ \t]+.*|[ \t]*)(?:\n|\Z))*", re.MULTILINE)
_read: dict[str, tuple[tuple[int, int], Kept]] = {}
"""What each file said, by its path, with the stamp it had then."""


class Kept(NamedTuple):
    """What the user's file says about a server; None where it says nothing."""

    endpoint: str | None = None
    token: str | None = None


def kept() -> Kept:
    """Of the user's file alone: a project's file may name another server, and must not get the user's token for it.

    Raises `ValueError` that names the file when it is not YAML.
    """
    path = _path()
    try:
        stat = path.stat()
    except OSError:
        return Kept()
    stamp = (stat.st_mtime_ns, stat.st_size)
    known = _read.get(str(path))
    if known is None or known[0] != stamp:
        known = _read[str(path)] = (stamp, _kept_in(path))
    return known[1]


def _path() -> Path:
    from skyinfra.client import config

    return Path(config.user_file() or Home.from_env().config).expanduser()


def _kept_in(path: Path) -> Kept:
    text = path.read_text()
    if "api_server" not in text:
        return Kept()
    server = _parsed(path, text).get("api_server") or {}
    if not isinstance(server, dict):
        raise ValueError(f"{path}: api_server: must be a map")
    return Kept(server.get("endpoint"), server.get("service_account_token"))


def _parsed(path: Path, text: str) -> dict[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: {str(error).splitlines()[0]}") from error
    if content is not None and not isinstance(content, dict):
        raise ValueError(f"{path}: must be a map of settings")
    return content or {}


def api_login(
    endpoint: str | None = None,
    relogin: bool = False,
    service_account_token: str | None = None,
    no_browser: bool = False,
) -> None:
    """Check that the server at `endpoint` takes the token, and keep both for every later call.

    Without a token, the one kept for that endpoint is used again, unless `relogin`. There is no browser login, so
    `no_browser` changes nothing. Raises `ValueError` for a bad endpoint or token, `ApiServerConnectionError`,
    `ApiServerAuthenticationError`.
    """
    from skyinfra.client import endpoint as endpoints
    from skyinfra.client import transport

    del no_browser
    home = Home.from_env()
    before = kept()
    address = (endpoint or before.endpoint or "").rstrip("/")
    if not address:
        raise ValueError("endpoint: give the address of a server, like https://skyinfra.example.com")
    token = service_account_token
    if token is None and not relogin and before.endpoint == address:
        token = before.token
    if token is not None and not token.startswith(TOKEN_PREFIX):
        raise ValueError(f"service_account_token: a token begins with {TOKEN_PREFIX!r}")
    target = endpoints.parse(address, token if token is not None else endpoints.token_for(address, home))
    transport.ask(target, "/v1/version")
    _keep(address, token)


def api_logout() -> bool:
    """Forget the server that was logged in to. False when there was none."""
    if kept().endpoint is None:
        return False
    _keep(None, None)
    return True


def _keep(address: str | None, token: str | None) -> None:
    """Put the section into the file, 0600 from then on: it holds a credential."""
    import yaml

    from skyinfra.client import config

    path = _path()
    try:
        text = path.read_text()
    except FileNotFoundError:
        text = ""
    wanted = _parsed(path, text)
    section = dict(wanted.get("api_server") or {})
    for name, value in (("endpoint", address), ("service_account_token", token)):
        section.pop(name, None)
        if value is not None:
            section[name] = value
    wanted.pop("api_server", None)
    if section:
        wanted["api_server"] = section
    block = yaml.safe_dump({"api_server": section}, sort_keys=False) if section else ""
    rest = _SECTION.sub("", text)
    changed = rest + ("\n" if rest and not rest.endswith("\n") else "") + block
    if _parsed(path, changed) != wanted:  # written in a style that cannot be edited by lines
        changed = yaml.safe_dump(wanted, sort_keys=False) if wanted else ""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(changed)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    config.reload_config()
