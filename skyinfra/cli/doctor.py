"""`skyinfra doctor`: what exists on this machine against the rows that own it."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer

from skyinfra.cli import out
from skyinfra.cli.status import check_output
from skyinfra.cli.text import shortened, table

__all__ = ["doctor"]


def doctor(
    output: Annotated[str, typer.Option("--output", "-o", metavar="table|json", help="Output format.")] = "table",
) -> int:
    """Compare what exists on this machine with what the server knows.

    Exits with 1 when something belongs to nobody.
    """
    check_output(output)
    from skyinfra.client.api import doctor as report

    told = report()
    asking = _this_command()
    entries = [one for one in told.get("entries", []) if one["kind"] != "process" or one["id"] not in asking]
    strays = [one for one in entries if one.get("owner") is None]
    if output == "json":
        out.print_json({**told, "entries": entries})
        return 1 if strays else 0
    columns = ("kind", "id", "owner", "note")
    print(table([name.upper() for name in columns], [[_cell(one, name) for name in columns] for one in entries]))
    if strays:
        out.error(
            f"{len(strays)} of these belong to nobody", "remove them, or the cluster that left them: skyinfra down"
        )
        return 1
    out.say("Everything here belongs to somebody.")
    return 0


def _cell(entry: dict[str, Any], name: str) -> str:
    return shortened(str(entry.get(name) or ""), 60 if name == "note" else 80)


def _this_command() -> set[str]:
    """Process ids of this command and of what it was started by: they carry the state folder's name, too, when a
    shell exports it, and belong to the person who asks."""
    found: set[str] = set()
    pid = os.getpid()
    while pid > 1:
        found.add(str(pid))
        try:
            with open(f"/proc/{pid}/stat") as file:
                pid = int(file.read().rpartition(")")[2].split()[1])
        except OSError:
            break
    return found
