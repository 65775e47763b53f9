"""`skyinfra eject`: a cluster as an ordinary Pulumi project, in a folder."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from skyinfra.cli import out

__all__ = ["eject"]


def eject(
    cluster: Annotated[str, typer.Argument(metavar="CLUSTER", help="Cluster.")],
    folder: Annotated[
        str | None, typer.Option("--folder", "-f", help="Where to write it; ./CLUSTER when absent.")
    ] = None,
) -> int:
    """Write a cluster as an ordinary Pulumi project: program, settings, and where its state is.

    The stack stays where it is, so the project's first preview says that nothing changes. Existing files are kept.
    """
    from skyinfra.client.history import eject as ask
    from skyinfra.client.requests import get
    from skyinfra.model.exceptions import with_hint

    files = get(ask(cluster))["files"]
    where = os.path.abspath(folder or cluster)
    there = [name for name in files if os.path.lexists(os.path.join(where, name))]
    if there:
        raise with_hint(
            FileExistsError(f"{where} holds {', '.join(sorted(there))} already"), "name another folder with --folder"
        )
    os.makedirs(where, exist_ok=True)
    for name, text in files.items():
        # Opened so that a file which appeared meanwhile is not written over; private: the settings name what seals it.
        descriptor = os.open(os.path.join(where, name), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
    print(where)
    out.say(f"Next: cd {where}; . ./env.sh; pulumi preview")
    return 0
