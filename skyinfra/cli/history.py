"""`skyinfra history`: what a cluster's stack went through, also of a cluster that is gone."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from skyinfra.cli import out
from skyinfra.cli.status import check_output
from skyinfra.cli.text import ago, duration, shortened, table

__all__ = ["history"]


def history(
    cluster: Annotated[str, typer.Argument(metavar="CLUSTER", help="Cluster, also one that is gone.")],
    limit: Annotated[int | None, typer.Option("--limit", "-l", help="The newest N.", min=1)] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Versions, messages, whole ids.")] = False,
    output: Annotated[str, typer.Option("--output", "-o", metavar="table|json", help="Output format.")] = "table",
) -> int:
    """Show the updates of a cluster's stack: what changed, when, and who asked for it.

    Updates are numbered through all lives of the name; `skyinfra diff` and `skyinfra rollback` take these numbers.
    """
    check_output(output)
    from skyinfra.client.history import history as ask
    from skyinfra.client.requests import get

    records = get(ask(cluster, limit))
    if output == "json":
        out.print_json(records)
        return 0
    if not records:
        out.say(f"Nothing was changed on cluster {cluster} yet.")
        return 0
    columns = ["UPDATE", "KIND", "CHANGES", "RESULT", "WHEN", "TOOK", "USER", "REQUEST", "COMMAND"]
    print(table(columns + (["VERSION", "MESSAGE"] if verbose else []), [_row(one, verbose) for one in records]))
    return 0


def _row(one: Any, verbose: bool) -> list[object]:
    ended = one.get("finished_at")
    took = None if ended is None else duration(ended - one["started_at"])
    cells: list[object] = [f"@{one['number']}", one["kind"], counts(one.get("changes") or {}), one["state"]]
    cells += [ago(one["started_at"]), took, one.get("user_name")]
    cells += [one["request_id"] if verbose else one["request_id"][:8]]
    cells += [one.get("command") if verbose else shortened(one.get("command"), 50)]
    return cells + ([one.get("version"), one.get("message")] if verbose else [])


def counts(changes: dict[str, int]) -> str:
    """``+2 ~0 -1``; a replacement counts as a change."""
    if not changes:
        return "-"
    changed = changes.get("update", 0) + changes.get("replace", 0)
    return f"+{changes.get('create', 0)} ~{changed} -{changes.get('delete', 0)}"
