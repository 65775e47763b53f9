"""`skyinfra ssh`: pools of machines that the server reaches over SSH."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from skyinfra.cli import out
from skyinfra.cli.status import check_output
from skyinfra.cli.text import table

__all__ = ["COMMANDS"]

Infra = Annotated[str | None, typer.Option("--infra", metavar="POOL", help="One pool; all when absent.")]


def up(
    infra: Infra = None,
    file: Annotated[str | None, typer.Option("--file", "-f", help="Add the pools of this file first.")] = None,
) -> int:
    """Look at the machines of pools and offer them. Exits with 1 when one of them cannot be used."""
    from skyinfra.client.requests import get
    from skyinfra.client.ssh_pools import ssh_up

    found = get(ssh_up(infra, file))
    if not found:
        out.error("no ssh node pool is declared", "see docs/how-to/ssh-pool.md, or give a file with -f")
        return 1
    wrong = 0
    for pool, hosts in found.items():
        print(f"{pool}:")
        for host, seen in hosts.items():
            wrong += seen["facts"] is None
            print(f"  {host}: {_about(seen['facts']) if seen['facts'] else 'error: ' + seen['problem']}")
    if wrong:
        out.error(f"{wrong} of {sum(map(len, found.values()))} machines cannot be used", "the others are offered")
    return 1 if wrong else 0


def down(infra: Infra = None) -> int:
    """Offer the machines of pools no more; clusters on them go first."""
    from skyinfra.client.requests import get
    from skyinfra.client.ssh_pools import ssh_down

    pools = get(ssh_down(infra))
    out.say(f"Down: {', '.join(pools)}." if pools else "No such pool was up.")
    return 0


def status(
    infra: Infra = None,
    output: Annotated[str, typer.Option("--output", "-o", metavar="table|json", help="Output format.")] = "table",
) -> int:
    """Show the machines of pools: what they are, which are free, and who has the others."""
    check_output(output)
    from skyinfra.client.requests import get
    from skyinfra.client.ssh_pools import ssh_status

    pools = get(ssh_status(infra))
    if output == "json":
        out.print_json(pools)
        return 0
    rows = [[pool, one["host"], one["state"], *_cells(one)] for pool, hosts in pools.items() for one in hosts]
    if not rows:
        out.say("No ssh node pools.")
        return 0
    print(table(["POOL", "HOST", "STATE", "MACHINE", "NOTE"], rows))
    return 0


def _cells(one: dict[str, Any]) -> list[str]:
    note = one["holder"] or one["problem"] or ("" if one["up"] else "not up: `skyinfra ssh up`")
    return [_about(one["facts"]) if one["facts"] else "-", note or "-"]


def _about(facts: dict[str, Any]) -> str:
    gpus = f", {len(facts['gpus'])} x {facts['gpus'][0]['name']}" if facts["gpus"] else ""
    return f"{facts['cpus']} CPUs, {facts['memory_gb']:g} GB{gpus}, {facts['os']}, Python {facts['python']}"


COMMANDS = {"up": up, "down": down, "status": status}
