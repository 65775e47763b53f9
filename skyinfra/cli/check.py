"""`skyinfra check`: which clouds can be used, and why not the others."""

from __future__ import annotations

from typing import Annotated

import typer

from skyinfra.cli import out
from skyinfra.cli.status import check_output
from skyinfra.cli.text import table

__all__ = ["check"]


def check(
    infra: Annotated[list[str] | None, typer.Argument(help="Clouds; all when absent.")] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Clouds that cannot be used, too.")] = False,
    workspace: Annotated[str | None, typer.Option("--workspace", "-w", help="Workspace.")] = None,
    output: Annotated[str, typer.Option("--output", "-o", metavar="table|json", help="Output format.")] = "table",
) -> int:
    """Show which clouds can be used, and why not the others. Exits with 1 when none of those asked for can be."""
    check_output(output)
    from skyinfra.client.checks import check_report

    report = check_report(infra, workspace)
    clouds = report["clouds"]
    enabled = [name for name, one in clouds.items() if one["enabled"]]
    if output == "json":
        out.print_json(report)
        return 0 if enabled else 1
    shown = {name: one for name, one in clouds.items() if one["enabled"] or verbose or infra}
    rows = [[name, "enabled" if one["enabled"] else "disabled", one["reason"]] for name, one in shown.items()]
    if rows:
        print(table(["CLOUD", "STATUS", "WHY"], rows))
    if not enabled:
        out.error("none of these clouds can be used")
        return 1
    hidden = len(clouds) - len(shown)
    if hidden:
        out.say(f"{hidden} more cannot be used; `skyinfra check -v` says why.")
    return 0
