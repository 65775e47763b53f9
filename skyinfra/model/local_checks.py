"""What `validate()` asks of the machine it runs on. The only module of `model` that looks at a disk.

Parsing never comes here: a file is checked only when its task is about to be used.
"""

from __future__ import annotations

import os

from skyinfra.model.exceptions import InvalidSkyPilotConfigError
from skyinfra.model.yaml_file import read_yaml_file

__all__ = ["expand", "kubernetes_contexts", "local_path_exists"]


def expand(path: str) -> str:
    """Absolute, with `~` and variables filled in."""
    return os.path.abspath(os.path.expanduser(os.path.expandvars(path)))


def local_path_exists(path: str) -> bool:
    return os.path.lexists(expand(path))


def kubernetes_contexts() -> list[str]:
    """Names of the contexts in the user's kubeconfig files; none when there is no file that can be read."""
    names: list[str] = []
    for path in (os.environ.get("KUBECONFIG") or "~/.kube/config").split(os.pathsep):
        try:
            documents = read_yaml_file(path).documents
        except (OSError, InvalidSkyPilotConfigError):
            continue  # no kubeconfig, or not one: then it names no context, which is the answer
        for document in documents:
            contexts = document.get("contexts") if isinstance(document, dict) else None
            names += [c["name"] for c in contexts or [] if isinstance(c, dict) and isinstance(c.get("name"), str)]
    return names
