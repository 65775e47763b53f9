"""`skyinfra exec`: run a task or command on a cluster that is up."""

from __future__ import annotations

from typing import Annotated

import typer

from skyinfra.cli import task_options as t
from skyinfra.cli.failures import UsageError
from skyinfra.cli.launch import finish

__all__ = ["exec_"]


def exec_(
    cluster: Annotated[str, typer.Argument(metavar="CLUSTER", help="Cluster to run on.")],
    entrypoint: t.Entrypoint = None,
    detach_run: t.Detach = False,
    dryrun: t.Dryrun = False,
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
    async_call: t.Async = False,
    git_url: t.GitUrl = None,
    git_ref: t.GitRef = None,
) -> int:
    """Run a task or a command on a cluster that is up.

    Only the workdir is sent; setup and file mounts are left out. Exits as `skyinfra launch` does.
    """
    given = dict(locals())
    import skyinfra as sky
    from skyinfra.cli import upload

    if not entrypoint:
        raise UsageError("exec needs a task's YAML file or a command")
    task = t.build_task(given)
    with upload.shown() as progress:
        request_id = sky.exec(task, cluster_name=cluster, dryrun=dryrun, _progress=progress)
    return finish(request_id, cluster, detach=detach_run, async_call=async_call, dryrun=dryrun)
