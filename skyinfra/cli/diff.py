"""`skyinfra diff`: what differs between two updates of a cluster, or between now and what a launch would make."""

from __future__ import annotations

from typing import Annotated

import typer

from skyinfra.cli import out
from skyinfra.cli.failures import UsageError
from skyinfra.cli.status import check_output

__all__ = ["diff", "update_number"]


def diff(
    cluster: Annotated[str, typer.Argument(metavar="CLUSTER", help="Cluster, also one that is gone.")],
    before: Annotated[str | None, typer.Argument(metavar="[@N]", help="Update, as in `skyinfra history`.")] = None,
    after: Annotated[str | None, typer.Argument(metavar="[@M]", help="Update to compare with; now, if absent.")] = None,
    output: Annotated[str, typer.Option("--output", "-o", metavar="table|json", help="Output format.")] = "table",
) -> int:
    """Show what differs, in the spec and in the resources.

    `diff C`: now against what a launch would make of it. `diff C @N`: update N against now. `diff C @N @M`: the two.
    """
    check_output(output)
    from skyinfra.cli import plan_text, wait
    from skyinfra.client.history import diff as ask

    numbers = [update_number(word) for word in (before, after) if word is not None]
    found = wait.value_of(ask(cluster, *numbers))
    if output == "json":
        out.print_json(found)
        return 0
    text = plan_text.difference(found)
    if text:
        print(text)
    else:
        out.say("No differences.")
    return 0


def update_number(word: str) -> int:
    """``@3`` or ``3``. Raises `UsageError`."""
    digits = word.removeprefix("@")
    if not digits.isdecimal() or int(digits) < 1:
        raise UsageError(f"an update is @1, @2, …, not {word!r}")
    return int(digits)
