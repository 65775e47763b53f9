"""How somebody drives a cluster's stack with the `pulumi` command, and how a cluster is ejected into a project. Reads.

Paths are those of this server's host, and the passphrase is named, never shown.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from skyinfra.model.exceptions import with_hint
from skyinfra.model.home import Home
from skyinfra.model.spec import ClusterSpec
from skyinfra.stacks import project
from skyinfra.stacks.backend import StateUnreadable, open_backend
from skyinfra.stacks.engine import find_engine
from skyinfra.stacks.settings import load_settings
from skyinfra.stacks.workspace import PROJECT, user_env

__all__ = ["eject", "stack_env"]


def stack_env(home: Home, stack: str) -> dict[str, str]:
    """The variables with which `pulumi stack export` and the like find this stack. Blocking.

    PATH, where the engine is not found without, is the folder that goes before the caller's own.

    Raises `BadSetting` for a backend setting that cannot be honoured.
    """
    engine = find_engine()
    found = shutil.which("pulumi")
    path = {}
    if engine is not None and (found is None or Path(found).resolve() != engine.resolve()):
        path = {"PATH": str(engine.parent)}
    return {**user_env(home), "PULUMI_STACK": f"organization/{PROJECT}/{stack}", **path}


def eject(home: Home, cluster: Any) -> dict[str, str]:
    """Files by name: the program, the project, the stack's settings, where its state is. Blocking.

    Raises `RuntimeError` when the stack's state is not there or cannot be read: a project without it would plan to make
    everything anew.
    """
    try:
        state = open_backend(load_settings(home)).load(cluster.stack)
    except StateUnreadable as exc:
        raise _not_now(cluster.name, str(exc)) from exc
    if state is None or not state.resources:
        raise _not_now(cluster.name, "its stack holds nothing")
    spec = ClusterSpec.from_json(cluster.spec)
    return project.files(cluster.name, spec, state.secrets_provider, stack_env(home, cluster.stack))


def _not_now(name: str, why: str) -> Exception:
    return with_hint(
        RuntimeError(f"cluster '{name}' cannot be ejected: {why}"), f"`skyinfra launch -c {name} …` brings it in order"
    )
