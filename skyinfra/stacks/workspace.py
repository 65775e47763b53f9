"""What one engine call runs in: environment, provider plugin, passphrase, and a temporary project folder.

Everything the engine reads or writes lies under `SKYINFRA_HOME`: its own home, the backend, the passphrase file. The
project folder holds ``Pulumi.yaml`` and the stack's settings file; the configuration is written straight into it,
because ``pulumi config set`` costs 0.1 s a value. Refuses to hold a secret: the spec has none.
"""

from __future__ import annotations

import json
import os
import secrets
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from skyinfra.model.home import Home
from skyinfra.model.spec import ClusterSpec
from skyinfra.stacks.files import make_private_dir, write_atomic
from skyinfra.stacks.settings import load_settings

__all__ = [
    "PROJECT",
    "PROVIDER_VERSION",
    "engine_env",
    "prepare_home",
    "settings_lines",
    "user_env",
    "write_project",
]

PROJECT = "skyinfra"
#: The plugin's version in every state. It moves only with a migration of what states hold: a state that names another
#: version needs a plugin folder of that version.
PROVIDER_VERSION = "0.1.0"
CONFIG_KEY = "skyinfra:cluster"

_FIXED = {
    "PULUMI_SKIP_UPDATE_CHECK": "true",
    "PULUMI_DISABLE_REGISTRY_RESOLVE": "true",
    "PULUMI_DIY_BACKEND_NO_LEGACY_WARNING": "true",
    "PULUMI_DISABLE_CI_DETECTION": "true",
    "PULUMI_SUPPRESS_NEO_LINK": "true",
    "PULUMI_OPTION_SKIP_PLUGIN_PRE_INSTALL": "true",
    "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
    "PULUMI_IGNORE_AMBIENT_PLUGINS": "true",  # a plugin on the PATH is not the one that a worker serves
    "PULUMI_AUTOMATION_API": "true",
    "PULUMI_DEBUG_COMMANDS": "true",  # without it the event log is no known flag
    "PULUMI_LOG_ROTATION_MAX_TOTAL_MB": "16",
}

_FOR_USERS = (
    "PULUMI_SKIP_UPDATE_CHECK",
    "PULUMI_DISABLE_REGISTRY_RESOLVE",
    "PULUMI_DIY_BACKEND_NO_LEGACY_WARNING",
    "PULUMI_OPTION_SKIP_PLUGIN_PRE_INSTALL",
    "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION",
)


def engine_env(home: Home, env: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment of every engine process: the caller's without its Pulumi settings, and ours."""
    foreign = {name for name in env if name.startswith("PULUMI_") and name != "PULUMI_ACCESS_TOKEN"}
    return {
        **{name: value for name, value in env.items() if name not in foreign},
        **_FIXED,
        "SKYINFRA_HOME": str(home.root),
        "PULUMI_HOME": str(home.pulumi_home),
        "PULUMI_BACKEND_URL": load_settings(home, env).backend_url,
        "PULUMI_CONFIG_PASSPHRASE_FILE": str(home.passphrase),
    }


def user_env(home: Home, env: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What a person's own `pulumi` needs to drive our stacks."""
    return {
        "SKYINFRA_HOME": str(home.root),
        "PULUMI_HOME": str(home.pulumi_home),
        "PULUMI_BACKEND_URL": load_settings(home, env).backend_url,
        "PULUMI_CONFIG_PASSPHRASE_FILE": str(home.passphrase),
        **{name: _FIXED[name] for name in _FOR_USERS},
    }


def prepare_home(home: Home) -> None:
    """Folders, passphrase and plugin; cheap when they are there. Two processes at once agree on one passphrase."""
    folder = load_settings(home).folder
    for path in (home.root, home.pulumi_home, home.passphrase.parent, *([folder] if folder else [])):
        make_private_dir(path)
    if not home.passphrase.exists():
        mine = home.passphrase.with_name(f".passphrase.{os.getpid()}")
        write_atomic(mine, secrets.token_urlsafe(32).encode())
        try:
            os.link(mine, home.passphrase)  # fails when another was first: theirs counts
        except FileExistsError:
            pass
        mine.unlink()
    _install_plugin(home)


def _install_plugin(home: Home) -> None:
    folder = make_private_dir(home.pulumi_home / "plugins" / f"resource-skyinfra-v{PROVIDER_VERSION}")
    program = folder / "pulumi-resource-skyinfra"
    text = plugin_script(sys.executable).encode()
    if not program.exists() or program.read_bytes() != text:
        write_atomic(program, text, mode=0o700)


def plugin_script(python: str) -> str:
    """Inside a worker the provider is served already: say where, and stay until the engine closes our input."""
    return (
        "#!/bin/sh\n"
        'if [ -n "$SKYINFRA_PROVIDER_PORT" ]; then\n'
        '    echo "$SKYINFRA_PROVIDER_PORT"\n'
        "    exec cat >/dev/null\n"
        "fi\n"
        f"exec {shlex.quote(python)} -m skyinfra.stacks.provider\n"
    )


def write_project(folder: Path, stack: str, spec: ClusterSpec | None, secrets_provider: Mapping[str, Any]) -> None:
    """The project folder of one operation. `secrets_provider` is the state's own (empty: a new stack gets one)."""
    make_private_dir(folder)
    (folder / "Pulumi.yaml").write_text(f"name: {PROJECT}\nruntime: python\n")
    lines = settings_lines(spec, secrets_provider)
    if lines:
        write_atomic(folder / f"Pulumi.{stack}.yaml", ("\n".join(lines) + "\n").encode())


def settings_lines(spec: ClusterSpec | None, provider: Mapping[str, Any]) -> list[str]:
    """A stack's settings file: what seals its state (a salt, or a key service and its wrapped key), and its spec."""
    state = provider.get("state") or {}
    names = {"salt": "encryptionsalt", "url": "secretsprovider", "encryptedkey": "encryptedkey"}
    lines = [f"{name}: {json.dumps(state[key])}" for key, name in names.items() if state.get(key)]
    if spec is not None:
        # JSON is YAML, and the spec's text as one string is what Pulumi keeps of an object anyway.
        lines += ["config:", f"  {CONFIG_KEY}: {json.dumps(canonical(spec))}"]
    return lines


def canonical(spec: ClusterSpec) -> str:
    """The spec as text; equal specs give equal text."""
    return json.dumps(spec.to_json(), sort_keys=True)
