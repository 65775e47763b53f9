"""Where stacks are kept and how they are sealed: environment over ``$SKYINFRA_HOME/stacks.yaml`` over defaults.

The file is the place for anything but an experiment: a server that is started again from another shell has another
environment, and would look for its stacks elsewhere. No Pulumi here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import yaml

from skyinfra.model.home import Home

__all__ = ["BadSetting", "StackSettings", "load_settings", "shown"]

BACKEND, PROVIDER = "SKYINFRA_BACKEND_URL", "SKYINFRA_SECRETS_PROVIDER"
PASSPHRASE = "passphrase"

#: What a backend or secrets provider of that scheme finds its credentials by.
_CREDENTIALS: dict[str, tuple[str, ...]] = {
    "s3": ("AWS_",),
    "awskms": ("AWS_",),
    "postgres": ("PG",),
    "postgresql": ("PG",),
    "gcpkms": ("GOOGLE_", "CLOUDSDK_"),
    "azurekeyvault": ("AZURE_",),
    "hashivault": ("VAULT_",),
}


class BadSetting(ValueError):
    """A setting of the user's that cannot be honoured."""


@dataclass(frozen=True)
class StackSettings:
    backend_url: str
    secrets_provider: str = PASSPHRASE

    @property
    def folder(self) -> Path | None:
        """The backend's folder, or None when it is no ``file://`` one."""
        return Path(urlsplit(self.backend_url).path) if self.backend_url.startswith("file:///") else None

    def credentials(self, env: Mapping[str, str]) -> dict[str, str]:
        """The variables that the backend and the secrets provider need, and no others."""
        schemes = [url.partition("://")[0] for url in (self.backend_url, self.secrets_provider)]
        prefixes = tuple(prefix for scheme in schemes for prefix in _CREDENTIALS.get(scheme, ()))
        return {name: value for name, value in env.items() if prefixes and name.startswith(prefixes)}


def load_settings(home: Home, env: Mapping[str, str] = os.environ) -> StackSettings:
    """Raises `BadSetting` naming the file and the key."""
    path = home.root / "stacks.yaml"
    try:
        given = yaml.safe_load(path.read_text()) or {}
    except FileNotFoundError:
        given = {}
    except yaml.YAMLError as exc:
        raise BadSetting(f"{path} is not YAML: {' '.join(str(exc).split())}") from exc
    if not isinstance(given, dict):
        raise BadSetting(f"{path} must hold keys and values")
    for key, value in given.items():
        if key not in ("backend_url", "secrets_provider"):
            raise BadSetting(f"{path}: {key} is no setting; there are backend_url and secrets_provider")
        if not isinstance(value, str):
            raise BadSetting(f"{path}: {key} must be text, not {value!r}")
    return StackSettings(
        env.get(BACKEND) or given.get("backend_url") or f"file://{home.backend}",
        env.get(PROVIDER) or given.get("secrets_provider") or PASSPHRASE,
    )


def shown(url: str) -> str:
    """Without the password, and the query, that a URL may hold."""
    parts = urlsplit(url)
    if parts.password is None:
        return url
    return urlunsplit(parts._replace(netloc=parts.netloc.replace(f":{parts.password}@", ":…@"), query=""))
