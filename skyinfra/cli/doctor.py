"""`skyinfra doctor`: what exists on this machine against the rows that own it."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from skyinfra.cli import out
from skyinfra.cli.status import check_output
from skyinfra.cli.text import table

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
    strays = _strays(told)
    if output == "json":
        out.print_json(told)
        return 1 if strays else 0
    for kind, things in told.items():
        if isinstance(things, list) and things and isinstance(things[0], dict):
            columns = list(things[0])
            print(f"{kind}\n{table([c.upper() for c in columns], [[t.get(c) for c in columns] for t in things])}\n")
        elif not isinstance(things, (list, dict)):
            print(f"{kind}: {things}")
    if strays:
        out.error(f"{len(strays)} thing(s) belong to nobody", "`skyinfra down` the cluster, or report it")
        return 1
    out.say("Everything here belongs to somebody.")
    return 0


def _strays(told: dict[str, Any]) -> list[Any]:
    """Things of the report that name no owner."""
    things = [thing for kind in told.values() if isinstance(kind, list) for thing in kind]
    return [thing for thing in things if isinstance(thing, dict) and "owner" in thing and not thing["owner"]]
