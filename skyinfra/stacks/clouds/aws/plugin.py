"""The provider's plugin: of exactly the SDK's version, installed once per state folder by the engine."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from skyinfra.model.home import Home
from skyinfra.stacks.clouds.failures import CloudError

__all__ = ["ensure_plugin", "plugin_folder"]

INSTALL_S = 900.0


def plugin_folder(home: Home) -> Path:
    """Raises `CloudError` (user) where the SDK is not installed."""
    try:
        return home.pulumi_home / "plugins" / f"resource-aws-v{version('pulumi_aws')}"
    except PackageNotFoundError as exc:
        raise CloudError("user", "clusters on AWS need the extra: pip install 'skyinfra[aws]'") from exc


def ensure_plugin(home: Home, engine: Path, env: Mapping[str, str], tell: Callable[[str], None]) -> None:
    """Idempotent. Raises `CloudError` (user) with the engine's own words when it cannot be had."""
    folder = plugin_folder(home)
    if (folder / "pulumi-resource-aws").exists():
        return
    number = folder.name.removeprefix("resource-aws-v")
    tell(f"installing the AWS provider {number} (about 200 MB, once)")
    words = [str(engine), "plugin", "install", "resource", "aws", number]
    try:
        done = subprocess.run(
            words, env=dict(env), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=INSTALL_S
        )
    except subprocess.TimeoutExpired as exc:
        raise CloudError("user", f"the AWS provider {number} could not be fetched in {INSTALL_S:g} s") from exc
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        reason = said[-1] if said else f"exit {done.returncode}"
        raise CloudError("user", f"the AWS provider {number} could not be installed: {reason}")
