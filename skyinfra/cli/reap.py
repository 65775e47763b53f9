"""`skyinfra reap`: what carries our tags and belongs to no cluster: list it, take it in again, or remove it."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from skyinfra.cli import ask, choose, out
from skyinfra.cli.status import check_output
from skyinfra.cli.text import ago, table

__all__ = ["reap"]


def reap(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List and stop.")] = False,
    adopt: Annotated[
        bool, typer.Option("--adopt", help="Take it in as clusters again instead of removing it.")
    ] = False,
    yes: choose.Yes = False,
    output: Annotated[str, typer.Option("--output", "-o", metavar="table|json", help="Of the list.")] = "table",
) -> int:
    """Find what carries this server's tags and belongs to no cluster, and remove it.

    With --dry-run it exits with 1 when there is something. What another server owns is never touched.
    """
    check_output(output)
    from skyinfra.cli import wait
    from skyinfra.client import clusters, history

    found = wait.value_of(history.orphans())
    for cloud, why in found["unseen"].items():
        out.error(f"{cloud} did not answer, so nothing is known of it: {why}")
    orphans = found["orphans"]
    if output == "json":
        out.print_json(dict(found))
    elif orphans:
        print(table(["STACK", "CLOUD", "MACHINES", "SINCE", "COST/hr"], [_row(one) for one in orphans]), flush=True)
    if dry_run or not orphans:
        if not orphans:
            out.say("Everything with our tags belongs to a cluster.")
        return 1 if orphans or found["unseen"] else 0
    verb = "Adopting" if adopt else "Removing"
    what = choose.named(verb, [one["stack"] for one in orphans])
    if not yes and not ask.confirm_destroying(what, f"{what}. Proceed?"):
        raise ask.aborted()
    for one in orphans:
        wait.value_of(history.adopt(one["stack"], one["name"], one["workspace"]))
    downs = {} if adopt else {one["name"]: clusters.down(one["name"]) for one in orphans}
    return choose.await_all(downs, "remove", False) or (1 if found["unseen"] else 0)


def _row(orphan: dict[str, Any]) -> list[str]:
    machines = orphan["machines"]
    place = "/".join(filter(None, [orphan["cloud"], orphan["region"]]))
    states = ", ".join(f"{one['id']} ({one['state']})" for one in machines) or "none: only the stack"
    since = [one["since"] for one in machines if one["since"]]
    prices = [one["hourly"] for one in machines]
    cost = "-" if None in prices else f"$ {sum(prices):.2f}"
    return [orphan["stack"], place, states, ago(min(since, default=None)), cost]
