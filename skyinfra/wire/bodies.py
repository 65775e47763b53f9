"""What crosses HTTP, typed: one model per verb body, and the payloads that come back.

Strict about types (a number where a string belongs is a 400 that names the field), tolerant of keys it does not know,
because a newer client may send more. Values only: what a body *means* is decided in the server.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["VERB_BODIES", "ErrorBody", "Handle", "RequestPayload"]

JobId = int
WaitFor = Literal["jobs_and_ssh", "jobs", "none"]


class _Body(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    user: str | dict[str, Any] | None = Field(default=None, description="Who asks, for display.")
    entrypoint: str | None = Field(default=None, description="The command line that led here, for display.")
    workspace: str | None = None


class ConfigLayers(BaseModel):
    """A client's configuration, layer by layer: the server's lies below them, a task's under the last."""

    model_config = ConfigDict(extra="ignore", strict=True)

    user: dict[str, Any] | None = None
    project: dict[str, Any] | None = None
    command_line: dict[str, Any] | None = None


class Blob(BaseModel):
    """An uploaded tar and what it becomes: a folder's content, or one file."""

    model_config = ConfigDict(extra="ignore", strict=True)

    digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    kind: Literal["dir", "file"]


class LaunchBody(_Body):
    task: dict[str, Any]
    cluster_name: str | None = None
    retry_until_up: bool = False
    idle_minutes_to_autostop: int | None = None
    wait_for: WaitFor | None = None
    dryrun: bool = False
    down: bool = False
    optimize_target: Literal["COST", "TIME"] = "COST"
    no_setup: bool = False
    fast: bool = False
    resize: bool = False
    replace_nodes: bool = False
    blobs: dict[str, Blob] = Field(default_factory=dict)
    config: ConfigLayers | None = None


class ExecBody(_Body):
    task: dict[str, Any]
    cluster_name: str
    dryrun: bool = False
    down: bool = False
    blobs: dict[str, Blob] = Field(default_factory=dict)
    config: ConfigLayers | None = None


class GraphBody(BaseModel):
    """Tasks as a graph. What runs in them is not sent: only what decides where they may run."""

    model_config = ConfigDict(extra="ignore", strict=True)

    name: str | None = None
    execution: Literal["serial", "parallel"] = "serial"
    inter_connection: bool | None = None
    tasks: list[dict[str, Any]] = Field(min_length=1)
    edges: list[tuple[int, int]] = Field(default_factory=list, description="Pairs of places in `tasks`.")


class OptimizeBody(_Body):
    dag: GraphBody
    minimize: Literal["COST", "TIME"] = "COST"
    config: ConfigLayers | None = None


class AcceleratorsBody(_Body):
    gpus_only: bool = True
    name_filter: str | None = None
    region_filter: str | None = None
    quantity_filter: int | None = None
    clouds: list[str] | str | None = None
    all_regions: bool = False
    require_price: bool = True
    case_sensitive: bool = True


class AcceleratorCountsBody(_Body):
    gpus_only: bool = True
    name_filter: str | None = None
    region_filter: str | None = None
    quantity_filter: int | None = None
    clouds: list[str] | str | None = None


class DownBody(_Body):
    cluster_name: str
    purge: bool = False
    graceful: bool = False
    graceful_timeout: float | None = None


class StopBody(DownBody):
    pass


class StartBody(_Body):
    cluster_name: str
    idle_minutes_to_autostop: int | None = None
    wait_for: WaitFor | None = None
    retry_until_up: bool = False
    down: bool = False
    force: bool = False


class AutostopBody(_Body):
    cluster_name: str
    idle_minutes: int
    wait_for: WaitFor | None = None
    down: bool = False
    hook: str | None = None
    hook_timeout: int | None = Field(default=None, ge=1)


class CancelBody(_Body):
    cluster_name: str
    all: bool | None = False
    all_users: bool | None = False
    job_ids: list[JobId] | None = None


class StatusBody(_Body):
    cluster_names: str | list[str] | None = None
    refresh: Literal["NONE", "AUTO", "FORCE"] = "NONE"
    all_users: bool = False


class QueueBody(_Body):
    cluster_name: str
    skip_finished: bool = False
    all_users: bool = False


class JobStatusBody(_Body):
    cluster_name: str
    job_ids: list[JobId] | None = None


class EndpointsBody(_Body):
    cluster_name: str
    port: int | str | None = None


class CostReportBody(_Body):
    days: int | None = None
    all_users: bool = False


class CheckBody(_Body):
    infra_list: list[str] | None = None
    verbose: bool = False


class HistoryBody(_Body):
    cluster_name: str
    limit: int | None = Field(default=None, ge=1)


class DiffBody(_Body):
    """Without `before`: now and what a launch would make of it. Without `after`: `before` and now."""

    cluster_name: str
    before: int | None = Field(default=None, ge=1)
    after: int | None = Field(default=None, ge=1)


class StackEnvBody(_Body):
    cluster_name: str


class EjectBody(_Body):
    cluster_name: str


class RollbackBody(_Body):
    cluster_name: str
    to: int = Field(ge=1)
    dryrun: bool = False
    replace_nodes: bool = False
    expect: int | None = Field(default=None, description="Refuse when the cluster's last update is another one.")


class OrphansBody(_Body):
    pass


class AdoptBody(_Body):
    cluster_name: str = Field(description="What the cluster is called from then on.")
    stack: str = Field(description="As `orphans` names it.")


class SshDownBody(_Body):
    infra: str | None = Field(default=None, description="A pool; None = all.")


class SshUpBody(SshDownBody):
    pools: str | None = Field(default=None, description="The text of an ssh_node_pools.yaml to take pools from.")
    file: str | None = Field(default=None, description="What its problems are reported under.")


class SshConfigBody(_Body):
    pass


VERB_BODIES: dict[str, type[_Body]] = {
    "launch": LaunchBody,
    "exec": ExecBody,
    "down": DownBody,
    "stop": StopBody,
    "start": StartBody,
    "autostop": AutostopBody,
    "cancel": CancelBody,
    "status": StatusBody,
    "queue": QueueBody,
    "job_status": JobStatusBody,
    "optimize": OptimizeBody,
    "list_accelerators": AcceleratorsBody,
    "list_accelerator_counts": AcceleratorCountsBody,
    "endpoints": EndpointsBody,
    "cost_report": CostReportBody,
    "check": CheckBody,
    "history": HistoryBody,
    "diff": DiffBody,
    "rollback": RollbackBody,
    "stack_env": StackEnvBody,
    "eject": EjectBody,
    "orphans": OrphansBody,
    "adopt": AdoptBody,
    "ssh_up": SshUpBody,
    "ssh_down": SshDownBody,
    "ssh_status": SshDownBody,
    "ssh_config": SshConfigBody,
}
"""Every verb of ``POST /v1/requests/{verb}``."""


class ErrorBody(BaseModel):
    """The body of every answer with a status >= 400, and of a failed request's `error`."""

    type: str = Field(description="Public exception class name, or a builtin's.")
    message: str
    args: list[Any] = Field(default_factory=list)
    attributes: dict[str, Any] = Field(default_factory=dict)
    hint: str | None = None
    detail: str | None = None


class Handle(BaseModel):
    """A cluster as users hold it."""

    cluster_name: str
    cluster_name_on_cloud: str
    workspace: str
    head_ip: str | None
    launched_nodes: int
    launched_resources: dict[str, Any]
    external_ips: list[str | None]
    internal_ips: list[str | None]
    cloud: str
    region: str | None


class OperationPayload(BaseModel):
    """One stack operation of a request."""

    id: str
    kind: str
    state: str
    version: int | None
    changes: dict[str, int]
    started_at: float
    finished_at: float | None
    message: str


class StepPayload(BaseModel):
    name: str
    state: Literal["began", "done", "failed"]


class RequestPayload(BaseModel):
    """A request as `api status` shows it. Its body is never part of it."""

    request_id: str
    name: str
    entrypoint: str
    status: Literal["PENDING", "WAITING", "RUNNING", "SUCCEEDED", "FAILED", "CANCELLED"]
    created_at: float
    finished_at: float | None
    user_id: str
    user_name: str
    cluster_name: str | None
    schedule_type: Literal["long", "short"]
    status_msg: str
    error: ErrorBody | None
    return_value: Any
    operations: list[OperationPayload]
    steps: list[StepPayload]
    workspace: str
