"""`skyinfra workspace`: where you work when a command names no workspace."""

from __future__ import annotations

from typing import Annotated

import typer

from skyinfra.cli import out
from skyinfra.cli.failures import UsageError
from skyinfra.cli.status import check_output

__all__ = ["COMMANDS"]


def use(
    name: Annotated[str | None, typer.Argument(help="Workspace.")] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Prefer none any more.")] = False,
) -> int:
    """Prefer a workspace: commands that name none use it from now on, wherever you log in from."""
    if (name is None) != clear:
        raise UsageError("give the name of a workspace, or --clear")
    from skyinfra.client.team import set_preferred_workspace

    set_preferred_workspace(name)
    out.say("No workspace is preferred any more." if clear else f"Workspace {name} is preferred from now on.")
    return 0


def info(
    output: Annotated[str, typer.Option("--output", "-o", metavar="table|json", help="Output format.")] = "table",
) -> int:
    """Show the workspace that commands use, and those that are open to you."""
    check_output(output)
    from skyinfra.client.caller import named_workspace
    from skyinfra.client.team import get_user_workspace

    told = get_user_workspace(named_workspace())
    if output == "json":
        out.print_json(told)
        return 0
    print(f"workspace:  {told['workspace']}")
    print(f"preferred:  {told['preferred'] or '-'}")
    print(f"open:       {', '.join(told['accessible'])}")
    return 0


COMMANDS = {"use": use, "info": info}
