"""`skyinfra launch`: make a cluster if need be, run a task on it, show its log, exit as the job did."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from skyinfra.cli import ask, choose, out
from skyinfra.cli import task_options as t

__all__ = ["launch"]


def launch(
    entrypoint: t.Entrypoint = None,
    cluster: Annotated[str | None, typer.Option("--cluster", "-c", help="Cluster name; made up when absent.")] = None,
    dryrun: t.Dryrun = False,
    detach_run: t.Detach = False,
    name: t.Name = None,
    workdir: t.Workdir = None,
    infra: t.Infra = None,
    cloud: t.Cloud = None,
    region: t.Region = None,
    zone: t.Zone = None,
    num_nodes: t.NumNodes = None,
    cpus: t.Cpus = None,
    memory: t.Memory = None,
    disk_size: t.DiskSize = None,
    disk_tier: t.DiskTier = None,
    network_tier: t.NetworkTier = None,
    local_disk: t.LocalDisk = None,
    use_spot: t.UseSpot = None,
    image_id: t.ImageId = None,
    env_file: t.EnvFile = None,
    env: t.Env = None,
    secret_file: t.SecretFile = None,
    secret: t.Secret = None,
    gpus: t.Gpus = None,
    instance_type: t.InstanceType = None,
    ports: t.Ports = None,
    priority: Annotated[int | None, typer.Option("--priority", help="-1000 to 1000.")] = None,
    async_call: t.Async = False,
    idle_minutes_to_autostop: Annotated[
        int | None, typer.Option("--idle-minutes-to-autostop", "-i", help="Stop after so many idle minutes.")
    ] = None,
    wait_for: Annotated[str | None, typer.Option("--wait-for", help="jobs_and_ssh, jobs or none.")] = None,
    down: Annotated[bool, typer.Option("--down", help="Remove the cluster when its jobs have ended.")] = False,
    retry_until_up: Annotated[
        bool, typer.Option("--retry-until-up", "-r", help="Try again until there is capacity.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    no_setup: Annotated[bool, typer.Option("--no-setup", help="Skip the task's setup.")] = False,
    clone_disk_from: Annotated[str | None, typer.Option("--clone-disk-from", help="Not supported.")] = None,
    fast: Annotated[bool, typer.Option("--fast", help="Skip what an unchanged, running cluster has already.")] = False,
    resize: Annotated[bool, typer.Option("--resize", help="Change the size of an idle cluster's node.")] = False,
    replace_nodes: Annotated[
        bool, typer.Option("--replace-nodes", help="Consent to machines being deleted or replaced, with their disks.")
    ] = False,
    git_url: t.GitUrl = None,
    git_ref: t.GitRef = None,
    workspace: Annotated[str | None, typer.Option("--workspace", "-w", help="Workspace.")] = None,
) -> int:
    """Make a cluster if need be, and run a task on it.

    ENTRYPOINT is a task's YAML file or a command; options override the file. Exits with the job's outcome: 0
    succeeded, 100 failed, 103 cancelled.
    """
    given = dict(locals())
    import skyinfra as sky
    from skyinfra.cli import upload
    from skyinfra.client.caller import generated_cluster_name, use_workspace

    use_workspace(workspace)
    task = t.build_task(given)
    cluster = cluster or generated_cluster_name()
    if not yes and not dryrun and not _agreed(cluster):
        raise ask.aborted()
    with upload.shown() as progress:
        request_id = sky.launch(
            task,
            cluster_name=cluster,
            retry_until_up=retry_until_up,
            idle_minutes_to_autostop=idle_minutes_to_autostop,
            wait_for=choose.wait_for(wait_for),
            dryrun=dryrun,
            down=down,
            no_setup=no_setup,
            clone_disk_from=clone_disk_from,
            fast=fast,
            resize=resize,
            replace_nodes=replace_nodes,
            _progress=progress,
        )
    return finish(request_id, cluster, detach=detach_run, async_call=async_call, dryrun=dryrun)


def finish(request_id: Any, cluster: str, *, detach: bool, async_call: bool, dryrun: bool = False) -> int:
    """What follows a launch or exec request: wait for it, follow its job, say what can be done next."""
    if async_call:
        out.say(f"Request {request_id} was handed in; follow it with `skyinfra api logs {request_id}`.")
        return 0
    from skyinfra.cli import job, ssh_entries, wait

    job_id, handle = wait.value_of(request_id)
    if dryrun:
        from skyinfra.cli import plan_text
        from skyinfra.client.history import plan_of

        plan = plan_of(request_id)
        if plan is not None:  # exec plans nothing: its cluster is what it is
            print(plan_text.plan(plan))
        return 0
    if handle is not None:
        ssh_entries.refresh(handle.cloud)
    if job_id is None:
        if handle is not None:
            out.say(f"Cluster {cluster} is up; no job was asked for.")
        return 0
    if detach:
        out.say(f"Job {job_id} was submitted.")
        for hint in _hints(cluster):
            out.say(hint.replace("{job_id}", str(job_id)))
        return 0
    return job.follow(cluster, job_id, hints=_hints(cluster))


def _hints(cluster: str) -> tuple[str, ...]:
    return (
        f"Job ID: {{job_id}}, cluster: {cluster}",
        f"  its log:   skyinfra logs {cluster} {{job_id}}",
        f"  all jobs:  skyinfra queue {cluster}",
        f"  stop:      skyinfra stop {cluster}",
        f"  remove:    skyinfra down {cluster}",
    )


def _agreed(cluster: str) -> bool:
    """Ask before a new cluster is made, where somebody can answer."""
    if not out.interactive():
        return True
    import skyinfra as sky

    if sky.get(sky.status([cluster])):
        return True
    return ask.confirm(f"Launching a new cluster '{cluster}'. Proceed?")
