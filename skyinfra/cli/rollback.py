"""`skyinfra rollback`: show what going back would do, ask, do it."""

from __future__ import annotations

from typing import Annotated

import typer

from skyinfra.cli import ask, out

__all__ = ["rollback"]


def rollback(
    cluster: Annotated[str, typer.Argument(metavar="CLUSTER", help="Cluster.")],
    to: Annotated[str, typer.Option("--to", metavar="N", help="Update to go back to, as in `skyinfra history`.")],
    dryrun: Annotated[bool, typer.Option("--dryrun", help="Show the plan and stop.")] = False,
    replace_nodes: Annotated[
        bool, typer.Option("--replace-nodes", help="Consent to machines being deleted or replaced, with their disks.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    async_call: Annotated[bool, typer.Option("--async", help="Hand the request in and return; needs -y.")] = False,
) -> int:
    """Make a cluster what it was after an earlier update.

    Machines, ports and labels go back; whether the cluster runs, and the version of its agent, stay. The plan is shown
    first.
    """
    from skyinfra.cli import plan_text, wait
    from skyinfra.cli.diff import update_number
    from skyinfra.cli.failures import UsageError
    from skyinfra.client.history import rollback as request

    number = update_number(to)
    if async_call and not yes:
        raise UsageError("--async needs -y: nobody would be there to answer")
    planned = wait.value_of(request(cluster, number, True, replace_nodes))
    print(plan_text.plan(planned["plan"]), flush=True)
    if dryrun:
        return 0
    if not any(planned["plan"]["changes"].get(name) for name in ("create", "update", "replace", "delete")):
        if not planned["plan"]["spec"]:
            out.say(f"Cluster {cluster} is as it was after update {number}.")
            return 0
    elif not planned["plan"]["refused"]:
        what = f"Rolling cluster {cluster} back to update {number}"
        if not yes and not ask.confirm_destroying(what, f"{what}. Proceed?"):
            raise ask.aborted()
    request_id = request(cluster, number, False, replace_nodes, planned["update"])
    if async_call:
        out.say(f"Request {request_id} was handed in; follow it with `skyinfra api logs {request_id}`.")
        return 0
    wait.value_of(request_id)
    return 0
