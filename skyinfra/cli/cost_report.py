"""`skyinfra cost-report`: what clusters cost, also those that are gone."""

from __future__ import annotations

from typing import Annotated

import typer

from skyinfra.cli import out
from skyinfra.cli.status import check_output, state_name
from skyinfra.cli.text import ago, duration, table

__all__ = ["cost_report"]

SHOWN = 10


def cost_report(
    all_clusters: Annotated[bool, typer.Option("--all", "-a", help="All of them, not the newest 10 only.")] = False,
    days: Annotated[int, typer.Option("--days", help="Clusters that ended within so many days.", min=1)] = 30,
    output: Annotated[str, typer.Option("--output", "-o", metavar="table|json", help="Output format.")] = "table",
) -> int:
    """Show what clusters cost, also those that are gone. An estimate: prices of the catalog, times while they ran."""
    check_output(output)
    from skyinfra.client.clusters import cost_report as ask
    from skyinfra.client.requests import get

    records = get(ask(days))
    if output == "json":
        out.print_json(records)
        return 0
    if not records:
        out.say(f"No clusters in the last {days} days.")
        return 0
    columns = ["NAME", "LAUNCHED", "DURATION", "RESOURCES", "STATUS", "COST/hr", "COST (est.)"]
    shown = records if all_clusters else records[:SHOWN]
    rows = [
        [
            one["name"],
            ago(one.get("launched_at")),
            duration(one.get("duration")),
            one.get("resources_str"),
            state_name(one["status"]) if one.get("status") else "TERMINATED",
            f"$ {one.get('cost_per_hour') or 0:.2f}",
            f"$ {one.get('total_cost') or 0:.2f}",
        ]
        for one in shown
    ]
    print(table(columns, rows))
    if len(shown) < len(records):
        out.say(f"{len(records) - len(shown)} more; --all shows them.")
    return 0
