"""Every state and choice that a user sees, with SkyPilot's members and values.

What a state may become is in `transitions`. States are a graph, never an ordering: `JobStatus` and `RequestStatus`
compare only because users' code does (`status > JobStatus.RUNNING`).
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Iterable

__all__ = [
    "ApiServerStatus",
    "AutostopWaitFor",
    "ClusterStatus",
    "DiskTier",
    "FileMountType",
    "JobStatus",
    "LifecycleEvent",
    "ManagedJobScheduleState",
    "ManagedJobStatus",
    "NetworkTier",
    "OptimizeTarget",
    "ReplicaStatus",
    "RequestStatus",
    "RoleName",
    "ScheduleType",
    "ServiceComponent",
    "ServiceStatus",
    "StatusRefreshMode",
    "StorageStatus",
    "UpdateMode",
    "VolumeAccessMode",
    "VolumeStatus",
]

_GREEN, _YELLOW, _RED, _BLUE, _CYAN, _MAGENTA, _RESET = (
    "\x1b[32m",
    "\x1b[33m",
    "\x1b[31m",
    "\x1b[34m",
    "\x1b[36m",
    "\x1b[35m",
    "\x1b[0m",
)


def _painted(text: str, colour: str | None) -> str:
    return f"{colour}{text}{_RESET}" if colour else text


class ClusterStatus(enum.Enum):
    """What a cluster is, as last proven."""

    INIT = "INIT"  #: being made, or in doubt: some node or its agent is not as declared
    UP = "UP"  #: every node is there and its agent answers
    STOPPED = "STOPPED"  #: machines off, disks kept
    AUTOSTOPPING = "AUTOSTOPPING"  #: the idle deadline has passed and the stop or down is under way
    PENDING = "PENDING"  #: display only: a launch of it waits in the request queue

    def colored_str(self) -> str:
        """The name in its colour, for a terminal."""
        colours = {
            ClusterStatus.UP: _GREEN,
            ClusterStatus.INIT: _BLUE,
            ClusterStatus.STOPPED: _YELLOW,
            ClusterStatus.AUTOSTOPPING: _YELLOW,
            ClusterStatus.PENDING: _CYAN,
        }
        return _painted(self.value, colours[self])


@functools.total_ordering
class JobStatus(enum.Enum):
    """A job on a cluster. Comparison follows the order of definition, as users' code expects."""

    INIT = "INIT"  #: its row exists; not yet handed to the queue
    PENDING = "PENDING"  #: waits for room
    SETTING_UP = "SETTING_UP"  #: the setup script runs
    RUNNING = "RUNNING"  #: the run script runs
    FAILED_DRIVER = "FAILED_DRIVER"  #: what supervised it is gone, so its exit code is unknown
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"  #: the run script exited non-zero
    FAILED_SETUP = "FAILED_SETUP"  #: the setup script exited non-zero
    CANCELLED = "CANCELLED"

    def __lt__(self, other: object) -> bool:
        if not isinstance(other, JobStatus):
            return NotImplemented
        members = list(JobStatus)
        return members.index(self) < members.index(other)

    @classmethod
    def nonterminal_statuses(cls) -> list[JobStatus]:
        return [cls.INIT, cls.PENDING, cls.SETTING_UP, cls.RUNNING]

    @classmethod
    def user_code_failure_states(cls) -> list[JobStatus]:
        """Failures that the user's own scripts caused."""
        return [cls.FAILED, cls.FAILED_SETUP]

    def is_terminal(self) -> bool:
        return self not in self.nonterminal_statuses()

    def colored_str(self) -> str:
        """The name in its colour, for a terminal."""
        colours = {
            JobStatus.INIT: _BLUE,
            JobStatus.PENDING: _BLUE,
            JobStatus.SETTING_UP: _BLUE,
            JobStatus.RUNNING: _GREEN,
            JobStatus.SUCCEEDED: _GREEN,
            JobStatus.CANCELLED: _YELLOW,
        }
        return _painted(self.value, colours.get(self, _RED))


class StatusRefreshMode(enum.Enum):
    """How fresh `status` must be."""

    NONE = "NONE"  #: what is known
    AUTO = "AUTO"  #: ask again about clusters that may change by themselves (spot, autostop)
    FORCE = "FORCE"  #: ask again about all


class OptimizeTarget(enum.Enum):
    COST = 0
    TIME = 1


class ManagedJobStatus(enum.Enum):
    """A managed job, over all the clusters it used."""

    PENDING = "PENDING"
    DEPRECATED_SUBMITTED = "SUBMITTED"  #: only in rows of old versions
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    WINDING_DOWN = "WINDING_DOWN"
    RECOVERING = "RECOVERING"
    CANCELLING = "CANCELLING"
    SUCCEEDED = "SUCCEEDED"
    CANCELLED = "CANCELLED"
    FAILED = "FAILED"
    FAILED_SETUP = "FAILED_SETUP"
    FAILED_PRECHECKS = "FAILED_PRECHECKS"
    FAILED_NO_RESOURCE = "FAILED_NO_RESOURCE"
    FAILED_CONTROLLER = "FAILED_CONTROLLER"

    @classmethod
    def failure_statuses(cls) -> list[ManagedJobStatus]:
        return [
            cls.FAILED,
            cls.FAILED_SETUP,
            cls.FAILED_PRECHECKS,
            cls.FAILED_NO_RESOURCE,
            cls.FAILED_CONTROLLER,
        ]

    @classmethod
    def terminal_statuses(cls) -> list[ManagedJobStatus]:
        return [cls.SUCCEEDED, *cls.failure_statuses(), cls.CANCELLED]

    @classmethod
    def processing_statuses(cls) -> list[ManagedJobStatus]:
        """States in which the job holds or is getting a cluster."""
        return [cls.STARTING, cls.RUNNING, cls.WINDING_DOWN, cls.RECOVERING, cls.CANCELLING]

    def is_terminal(self) -> bool:
        return self in self.terminal_statuses()

    def is_failed(self) -> bool:
        return self in self.failure_statuses()

    def colored_str(self) -> str:
        """The name in its colour, for a terminal."""
        if self.is_failed():
            return _painted(self.value, _RED)
        colours = {
            ManagedJobStatus.RUNNING: _GREEN,
            ManagedJobStatus.SUCCEEDED: _GREEN,
            ManagedJobStatus.RECOVERING: _CYAN,
            ManagedJobStatus.CANCELLING: _YELLOW,
            ManagedJobStatus.CANCELLED: _YELLOW,
        }
        return _painted(self.value, colours.get(self, _BLUE))


class ManagedJobScheduleState(enum.Enum):
    INACTIVE = "INACTIVE"
    WAITING = "WAITING"
    ALIVE_WAITING = "ALIVE_WAITING"
    LAUNCHING = "LAUNCHING"
    ALIVE_BACKOFF = "ALIVE_BACKOFF"
    ALIVE = "ALIVE"
    DONE = "DONE"


class ReplicaStatus(enum.Enum):
    """One replica of a service, or one worker of a pool."""

    PENDING = "PENDING"
    PROVISIONING = "PROVISIONING"
    STARTING = "STARTING"
    READY = "READY"
    NOT_READY = "NOT_READY"
    SHUTTING_DOWN = "SHUTTING_DOWN"
    FAILED = "FAILED"
    FAILED_INITIAL_DELAY = "FAILED_INITIAL_DELAY"
    FAILED_PROBING = "FAILED_PROBING"
    FAILED_PROVISION = "FAILED_PROVISION"
    FAILED_CLEANUP = "FAILED_CLEANUP"
    PREEMPTED = "PREEMPTED"
    UNKNOWN = "UNKNOWN"

    @classmethod
    def failed_statuses(cls) -> list[ReplicaStatus]:
        return [
            cls.FAILED,
            cls.FAILED_CLEANUP,
            cls.FAILED_INITIAL_DELAY,
            cls.FAILED_PROBING,
            cls.FAILED_PROVISION,
            cls.UNKNOWN,
        ]

    @classmethod
    def terminal_statuses(cls) -> list[ReplicaStatus]:
        return [cls.SHUTTING_DOWN, cls.PREEMPTED, *cls.failed_statuses()]

    @classmethod
    def scale_down_decision_order(cls) -> list[ReplicaStatus]:
        """Which replicas go first when the service shrinks."""
        return [cls.PENDING, cls.PROVISIONING, cls.STARTING, cls.NOT_READY, cls.READY]

    def colored_str(self) -> str:
        """The name in its colour, for a terminal."""
        if self in self.failed_statuses():
            return _painted(self.value, _RED)
        colours = {
            ReplicaStatus.READY: _GREEN,
            ReplicaStatus.NOT_READY: _YELLOW,
            ReplicaStatus.PENDING: _YELLOW,
            ReplicaStatus.PREEMPTED: _MAGENTA,
            ReplicaStatus.SHUTTING_DOWN: _MAGENTA,
        }
        return _painted(self.value, colours.get(self, _BLUE))


class ServiceStatus(enum.Enum):
    CONTROLLER_INIT = "CONTROLLER_INIT"
    REPLICA_INIT = "REPLICA_INIT"
    CONTROLLER_FAILED = "CONTROLLER_FAILED"
    READY = "READY"
    SHUTTING_DOWN = "SHUTTING_DOWN"
    FAILED = "FAILED"
    FAILED_CLEANUP = "FAILED_CLEANUP"
    NO_REPLICA = "NO_REPLICA"

    @classmethod
    def failed_statuses(cls) -> list[ServiceStatus]:
        return [cls.CONTROLLER_FAILED, cls.FAILED_CLEANUP]

    @classmethod
    def terminal_statuses(cls) -> list[ServiceStatus]:
        return [cls.SHUTTING_DOWN, *cls.failed_statuses()]

    @classmethod
    def from_replica_statuses(cls, replica_statuses: Iterable[ReplicaStatus]) -> ServiceStatus:
        """READY if any replica is; else FAILED if any failed; else NO_REPLICA if there is none; else REPLICA_INIT."""
        seen = set(replica_statuses)
        if ReplicaStatus.READY in seen:
            return cls.READY
        if seen.intersection(ReplicaStatus.failed_statuses()):
            return cls.FAILED
        return cls.REPLICA_INIT if seen else cls.NO_REPLICA

    def colored_str(self) -> str:
        """The name in its colour, for a terminal."""
        colours = {
            ServiceStatus.READY: _GREEN,
            ServiceStatus.CONTROLLER_INIT: _BLUE,
            ServiceStatus.REPLICA_INIT: _BLUE,
            ServiceStatus.SHUTTING_DOWN: _YELLOW,
            ServiceStatus.NO_REPLICA: _MAGENTA,
        }
        return _painted(self.value, colours.get(self, _RED))


class RequestStatus(enum.Enum):
    """A request at the server."""

    PENDING = "PENDING"  #: stored; no step has begun
    WAITING = "WAITING"  #: parked: on its lane, a retry time, or a server that is away
    RUNNING = "RUNNING"  #: a step is being worked on
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @classmethod
    def finished_status(cls) -> list[RequestStatus]:
        return [cls.SUCCEEDED, cls.FAILED, cls.CANCELLED]

    def is_terminal(self) -> bool:
        return self in self.finished_status()

    def __gt__(self, other: object) -> bool:
        if not isinstance(other, RequestStatus):
            return NotImplemented
        members = list(RequestStatus)
        return members.index(self) > members.index(other)

    def colored_str(self) -> str:
        """The name in its colour, for a terminal."""
        colours = {
            RequestStatus.PENDING: _BLUE,
            RequestStatus.WAITING: _CYAN,
            RequestStatus.FAILED: _RED,
            RequestStatus.CANCELLED: _YELLOW,
        }
        return _painted(self.value, colours.get(self, _GREEN))


class ScheduleType(enum.Enum):
    LONG = "long"
    SHORT = "short"


class UpdateMode(enum.Enum):
    ROLLING = "rolling"
    BLUE_GREEN = "blue_green"


class ServiceComponent(enum.Enum):
    CONTROLLER = "controller"
    LOAD_BALANCER = "load_balancer"
    REPLICA = "replica"


class AutostopWaitFor(enum.Enum):
    """What counts as activity for the idle clock."""

    JOBS_AND_SSH = "jobs_and_ssh"
    JOBS = "jobs"
    NONE = "none"


class LifecycleEvent(enum.Enum):
    """What a hook may be bound to."""

    STOP = "stop"
    PREEMPTION = "preemption"
    DOWN = "down"


class ApiServerStatus(enum.Enum):
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    VERSION_MISMATCH = "version_mismatch"
    NEEDS_AUTH = "needs_auth"


class DiskTier(enum.Enum):
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    ULTRA = "ultra"
    BEST = "best"


class NetworkTier(enum.Enum):
    STANDARD = "standard"
    BEST = "best"


class StorageStatus(enum.Enum):
    INIT = "INIT"
    INIT_FAILED = "INIT_FAILED"
    UPLOAD_FAILED = "UPLOAD_FAILED"
    READY = "READY"


class FileMountType(enum.Enum):
    MODEL_CHECKPOINT_RO = "MODEL_CHECKPOINT_RO"
    MODEL_CHECKPOINT_RW = "MODEL_CHECKPOINT_RW"
    DATASET_RO = "DATASET_RO"
    DATASET_RW = "DATASET_RW"


class VolumeStatus(enum.Enum):
    READY = "READY"
    IN_USE = "IN_USE"
    NOT_READY = "NOT_READY"


class VolumeAccessMode(enum.Enum):
    READ_WRITE_ONCE = "ReadWriteOnce"
    READ_WRITE_ONCE_POD = "ReadWriteOncePod"
    READ_WRITE_MANY = "ReadWriteMany"
    READ_ONLY_MANY = "ReadOnlyMany"


class RoleName(enum.Enum):
    ADMIN = "admin"
    USER = "user"
    VIEWER = "viewer"
