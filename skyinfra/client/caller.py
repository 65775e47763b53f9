"""Who asks, and how: the user, workspace and command line that every request body carries.

Values given with --env and --secret are cut out of the command line here, before it can reach a row or a log.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from typing import Any

__all__ = [
    "about",
    "entrypoint",
    "generated_cluster_name",
    "named_workspace",
    "use_workspace",
    "user_name",
]

_VALUED = ("--env", "--secret")
_UNSAFE = re.compile(r"[^a-z0-9-]")


def about() -> dict[str, Any]:
    """`user`, `workspace` and `entrypoint` of a request body."""
    return {"user": user_name(), "workspace": named_workspace(), "entrypoint": entrypoint(sys.argv)}


def user_name() -> str:
    """SKYPILOT_USER, else the login name."""
    for name in ("SKYPILOT_USER", "USER", "LOGNAME"):
        if os.environ.get(name):
            return os.environ[name]
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid-{os.getuid()}"


def named_workspace() -> str | None:
    """The workspace that the environment or the configuration names; None leaves the choice to the server."""
    from skyinfra.client import config

    return os.environ.get("SKYINFRA_WORKSPACE") or config.setting(("active_workspace",))


def use_workspace(name: str | None) -> None:
    """Make `name` the workspace of every later request of this process; None changes nothing."""
    if name is not None:
        os.environ["SKYINFRA_WORKSPACE"] = name


def entrypoint(argv: Sequence[str]) -> str:
    """The command line without folders of the program and without values of variables."""
    program = argv[0] if argv and argv[0] else "python"
    # `python -m skyinfra.cli.main` is the same command under another name.
    words = ["skyinfra" if program.endswith("/skyinfra/cli/main.py") else os.path.basename(program)]
    hide_next = False
    for word in argv[1:]:
        option, equals, value = word.partition("=")
        if hide_next:
            words.append(_named(word))
        elif option in _VALUED and equals:
            words.append(f"{option}={_named(value)}")
        else:
            words.append(word)
        hide_next = word in _VALUED
    return " ".join(words)[:4096]


def generated_cluster_name() -> str:
    """``sky-<4 hex>-<user>``, as SkyPilot names a cluster nobody named."""
    user = _UNSAFE.sub("", user_name().lower()).strip("-") or "user"
    return f"sky-{os.urandom(2).hex()}-{user}"


def _named(pair: str) -> str:
    name, equals, _ = pair.partition("=")
    return f"{name}=…" if equals else name
