"""Our own: what a cluster's stack went through, what differs, and the way back. SkyPilot has no such verbs.

Here too: how a cluster was made, as `logs --provision` shows it, read from the stream of the request that made it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from skyinfra.client import caller, transport
from skyinfra.client.requests import api_status, submit
from skyinfra.model.records import Record
from skyinfra.model.requests import RequestId

__all__ = [
    "adopt",
    "diff",
    "eject",
    "history",
    "orphans",
    "plan_of",
    "provision_events",
    "rollback",
    "stack_env",
    "tail_provision_logs",
]


def history(cluster_name: str, limit: int | None = None) -> RequestId[list[Record]]:
    """The updates of a cluster's stack, newest first, those of a removed cluster too.

    `get` yields records with `number`, `kind`, `state`, `version`, `changes`, `request_id`, `verb`, `command`,
    `user_name`, `started_at`, `finished_at`, `message`. Raises `ClusterDoesNotExist` when there never was one.
    """
    return submit("history", {"cluster_name": cluster_name, "limit": limit, **caller.about()})


def diff(cluster_name: str, before: int | None = None, after: int | None = None) -> RequestId[Record]:
    """What differs between two updates; between an update and now; or, with no number, what a launch would change.

    `get` yields `{before, after, spec, resources}`. Raises `ClusterDoesNotExist`, and `ValueError` for an update that
    the cluster does not have or for `after` without `before`.
    """
    if before is None and after is not None:
        raise ValueError("after needs before")
    return submit("diff", {"cluster_name": cluster_name, "before": before, "after": after, **caller.about()})


def rollback(
    cluster_name: str, to: int, dryrun: bool = False, replace_nodes: bool = False, expect: int | None = None
) -> RequestId[Record]:
    """Make a cluster what it was after its update `to`.

    `get` yields `{plan, update, handle}`: with `dryrun` the plan, and in `update` the number to give as `expect`, so
    that the rollback is refused when the cluster has moved on since. `replace_nodes` consents to machines being deleted
    or replaced. Raises `ClusterDoesNotExist`, `ValueError` for an update that is nothing to go back to,
    `ClusterSetUpError` for want of consent.
    """
    body = {
        "cluster_name": cluster_name,
        "to": to,
        "dryrun": dryrun,
        "replace_nodes": replace_nodes,
        "expect": expect,
    }
    return submit("rollback", {**body, **caller.about()})


def plan_of(request_id: RequestId[Any]) -> Record | None:
    """The plan that a finished ``launch(dryrun=True)`` made; None for any other request."""
    answer = transport.call("GET", transport.path("requests", request_id, "result", wait_s=20), patient=True).json()
    plan = (answer.get("result") or {}).get("plan")
    return None if plan is None else Record(plan)


def stack_env(cluster_name: str) -> RequestId[Record]:
    """What drives the cluster's stack with the `pulumi` command, on the server's own host.

    `get` yields `{env, lines}`: variables by name (PATH: the folder to put before yours), and lines for a shell's
    `eval`. Raises `ClusterDoesNotExist`.
    """
    return submit("stack_env", {"cluster_name": cluster_name, **caller.about()})


def eject(cluster_name: str) -> RequestId[Record]:
    """The cluster as an ordinary Pulumi project over the same stack.

    `get` yields `{files}`, texts by file name. Raises `ClusterDoesNotExist`, and `RuntimeError` when its stack cannot
    be read.
    """
    return submit("eject", {"cluster_name": cluster_name, **caller.about()})


def tail_provision_logs(
    cluster_name: str, worker: int | None = None, follow: bool = True, tail: int = 0, output_stream: Any = None
) -> int:
    """Print how a cluster was made last: the log of the newest request that worked on its stack. Returns 0.

    `worker` is a node's slot: only its machine and agent are shown. Raises `ClusterDoesNotExist` when nothing was ever
    made under that name, or its requests are forgotten.
    """
    lines = _lines(provision_events(cluster_name, worker, follow))
    if tail:
        from collections import deque

        lines = iter(deque(lines, maxlen=tail))
    out = output_stream or sys.stdout
    for line in lines:
        out.write(line + "\n")
        out.flush()
    return 0


def provision_events(cluster_name: str, worker: int | None = None, follow: bool = True) -> Iterator[dict[str, Any]]:
    """The events of the newest request that worked on the cluster's stack. Raises as `tail_provision_logs`."""
    from skyinfra.client import stream

    for event in stream.events(_provisioning(cluster_name), follow):
        about_a_node = event.get("kind") == "resource"
        if worker is None or (about_a_node and str(event.get("name", "")).endswith(f"-{worker}")):
            yield event


def _provisioning(cluster_name: str) -> str:
    from skyinfra.model.exceptions import ClusterDoesNotExist

    kinds = ("up", "refresh")
    for row in api_status(all_status=True, cluster_name=cluster_name):
        if any(operation["kind"] in kinds for operation in row.get("operations") or ()):
            return row["request_id"]
    raise ClusterDoesNotExist(f"nothing was provisioned for a cluster '{cluster_name}'")


def _lines(events: Iterator[dict[str, Any]]) -> Iterator[str]:
    for event in events:
        if event.get("kind") == "log":
            yield str(event.get("text", ""))
        elif event.get("kind") == "resource":
            said = f": {event['text']}" if event.get("text") else ""
            yield f"{event.get('type')} {event.get('name')}: {event.get('op')} {event.get('state')}{said}"


def orphans() -> RequestId[Record]:
    """What carries this server's tag, or has a stack here, and belongs to no cluster.

    `get` yields `{orphans: [{stack, cloud, region, workspace, name, machines}], unseen}`; `unseen` has the clouds that
    did not answer, with why. For admins.
    """
    return submit("orphans", caller.about())


def adopt(stack: str, cluster_name: str, workspace: str | None = None) -> RequestId[Any]:
    """Make a cluster (in INIT) of what `orphans` names, so that `launch` or `down` can deal with it.

    `get` yields its handle. Raises `ClusterDoesNotExist` when there is no such orphan.
    """
    body = {"stack": stack, "cluster_name": cluster_name, **caller.about()}
    return submit("adopt", body if workspace is None else {**body, "workspace": workspace})
