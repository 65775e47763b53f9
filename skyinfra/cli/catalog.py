"""`skyinfra catalog`: how old the prices are, and newer ones from a cloud's own price API."""

from __future__ import annotations

from typing import Annotated

import typer

from skyinfra.cli import out
from skyinfra.cli.status import check_output
from skyinfra.cli.text import table

__all__ = ["COMMANDS"]


def refresh(
    cloud: Annotated[str, typer.Argument(metavar="aws|gcp|azure", help="Whose prices.")],
    region: Annotated[list[str] | None, typer.Option("--region", help="Only this region. Repeatable.")] = None,
) -> int:
    """Ask a cloud's own price API, with your credentials, and keep the answer."""
    from skyinfra.catalog.refresh import REFRESHABLE
    from skyinfra.catalog.refresh import refresh as collect
    from skyinfra.cli.failures import UsageError
    from skyinfra.model.home import Home

    if cloud.lower() not in REFRESHABLE:
        raise UsageError(f"{cloud}: prices can be refreshed for {', '.join(REFRESHABLE)}")
    out.say(f"Asking {cloud.lower()} for its prices; this takes a while.")
    done = collect(cloud, Home.from_env().root, region or None)
    out.say(f"{done.offers} offers in {done.regions} regions, {done.without_price} without a price: {done.path}")
    return 0


def age(
    output: Annotated[str, typer.Option("--output", "-o", metavar="table|json", help="Output format.")] = "table",
) -> int:
    """Show how old each cloud's prices are."""
    check_output(output)
    from skyinfra.catalog.sources import Sources
    from skyinfra.model.home import Home

    sources = Sources.of_home(Home.from_env().root)
    ages = [sources.age(cloud) for cloud in sources.clouds()]
    fields = ("cloud", "as_of", "days", "refreshed", "path")
    rows = [(one.cloud, str(one.as_of), one.days(), one.refreshed, str(one.path)) for one in ages]
    if output == "json":
        out.print_json([dict(zip(fields, row, strict=True)) for row in rows])
    else:
        named = [(*row[:3], "refreshed" if row[3] else "package", row[4]) for row in rows]
        print(table(("CLOUD", "AS_OF", "DAYS", "FROM", "FILE"), named))
    return 0


COMMANDS = {"refresh": refresh, "age": age}
