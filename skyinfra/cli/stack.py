"""`skyinfra stack`: a cluster's Pulumi stack, for those who drive it themselves."""

from __future__ import annotations

from typing import Annotated

import typer

from skyinfra.cli import out
from skyinfra.cli.status import check_output

__all__ = ["COMMANDS"]


def env(
    cluster: Annotated[str, typer.Argument(metavar="CLUSTER", help="Cluster.")],
    output: Annotated[str, typer.Option("--output", "-o", metavar="table|json", help="Output format.")] = "table",
) -> int:
    """Print export lines that the pulumi command needs to drive a cluster's stack.

    Use: eval "$(skyinfra stack env CLUSTER)"; pulumi stack export. Commands that run the program (preview, up, refresh)
    need a project, too: see `skyinfra eject`.
    """
    check_output(output)
    from skyinfra.client.history import stack_env
    from skyinfra.client.requests import get

    found = get(stack_env(cluster))
    if output == "json":
        out.print_json(found["env"])
    else:
        print("\n".join(found["lines"]))
    return 0


COMMANDS = {"env": env}
