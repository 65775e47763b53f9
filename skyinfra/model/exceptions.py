"""Every public exception, by SkyPilot's name and base, so that users' `except` clauses go on working.

What theirs lack: each instance may carry `hint` (what to do now, shown on a line of its own) and `detail` (for
operators: a provider's words, an operation's id). Set them with `with_hint`. How they cross the wire is
`errors_wire`'s business.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Any, TypeVar

__all__ = [
    "ARCH_NOT_SUPPORTED_EXIT_CODE",
    "GIT_FATAL_EXIT_CODE",
    "INSUFFICIENT_PRIVILEGES_CODE",
    "KEYBOARD_INTERRUPT_CODE",
    "MOUNT_PATH_NON_EMPTY_CODE",
    "RSYNC_FILE_NOT_FOUND_CODE",
    "SIGTSTP_CODE",
    "APINotSupportedError",
    "APIVersionMismatchError",
    "AWSAzFetchingError",
    "ApiServerAuthenticationError",
    "ApiServerConnectionError",
    "CachedClusterUnavailable",
    "ClientError",
    "CloudError",
    "CloudUserIdentityError",
    "ClusterDoesNotExist",
    "ClusterNotUpError",
    "ClusterOwnerIdentityMismatchError",
    "ClusterSetUpError",
    "ClusterStatusFetchingError",
    "CommandError",
    "CommandFailureException",
    "ConcurrentWorkerExhaustedError",
    "ExecutionPausedError",
    "ExecutionPoolFullError",
    "ExecutionRetryableError",
    "FetchClusterInfoError",
    "GitError",
    "InconsistentHighAvailabilityError",
    "InvalidCloudConfigs",
    "InvalidCloudCredentials",
    "InvalidClusterNameError",
    "InvalidRecipeNameError",
    "InvalidSkyPilotConfigError",
    "InvalidWorkspaceNameError",
    "JobExitCode",
    "KubeAPIUnreachableError",
    "KubernetesValidationError",
    "ManagedJobReachedMaxRetriesError",
    "ManagedJobStatusError",
    "ManagedJobUserCancelledError",
    "NetworkError",
    "NoCloudAccessError",
    "NoClusterLaunchedError",
    "NoWorkspaceAccessError",
    "NonExistentStorageAccountError",
    "NotSupportedError",
    "PermissionDeniedError",
    "PoolDoesNotExistError",
    "PortDoesNotExistError",
    "ProvisionPrechecksError",
    "ProvisionUnsupportedError",
    "RecipeAlreadyExistsError",
    "RequestAlreadyExistsError",
    "RequestCancelled",
    "RequestInterruptedError",
    "ResourcesMismatchError",
    "ResourcesUnavailableError",
    "RestfulPolicyError",
    "ServeUserTerminatedError",
    "ServerTemporarilyUnavailableError",
    "SkyPilotExcludeArgsBaseException",
    "SkyletInternalError",
    "SkyletMethodNotImplementedError",
    "SkyletUnavailableError",
    "StorageBucketCreateError",
    "StorageBucketDeleteError",
    "StorageBucketGetError",
    "StorageError",
    "StorageExternalDeletionError",
    "StorageInitError",
    "StorageModeError",
    "StorageNameError",
    "StorageSourceError",
    "StorageSpecError",
    "StorageUploadError",
    "UserRequestRejectedByPolicy",
    "VolumeNotFoundError",
    "VolumeNotReadyError",
    "VolumeTopologyConflictError",
    "WorkspaceAmbiguousError",
    "with_hint",
]

KEYBOARD_INTERRUPT_CODE = 130
SIGTSTP_CODE = 146
RSYNC_FILE_NOT_FOUND_CODE = 23
MOUNT_PATH_NON_EMPTY_CODE = 42
INSUFFICIENT_PRIVILEGES_CODE = 52
GIT_FATAL_EXIT_CODE = 128
ARCH_NOT_SUPPORTED_EXIT_CODE = 133

E = TypeVar("E", bound=BaseException)


def with_hint(exc: E, hint: str | None = None, detail: str | None = None) -> E:
    """The same exception, carrying what to do next and what operators want to know.

    `raise with_hint(ValueError("…"), "…")` works for every exception, builtin ones included.
    """
    if hint is not None:
        exc.hint = hint  # type: ignore[attr-defined]
    if detail is not None:
        exc.detail = detail  # type: ignore[attr-defined]
    return exc


class JobExitCode(enum.IntEnum):
    """What a command that follows a job exits with."""

    SUCCEEDED = 0
    FAILED = 100
    NOT_FINISHED = 101
    NOT_FOUND = 102
    CANCELLED = 103

    @classmethod
    def from_job_status(cls, status: Any) -> JobExitCode:
        """The code of a job's status, given as an enum member or its name; None = no such job."""
        if status is None:
            return cls.NOT_FOUND
        name = getattr(status, "value", status)
        if name in ("SUCCEEDED", "CANCELLED"):
            return cls[name]
        if str(name).startswith("FAILED"):
            return cls.FAILED
        return cls.NOT_FINISHED

    @classmethod
    def from_managed_job_status(cls, status: Any) -> JobExitCode:
        """The same rule for a managed job."""
        return cls.from_job_status(status)


# --- clouds and placement ------------------------------------------------------------------------------------


class CloudError(Exception):
    """A cloud refused or failed; also what a class unknown to the client comes back as."""

    def __init__(self, message: str = "", cloud_provider: str = "", error_type: str = "") -> None:
        super().__init__(message)
        self.cloud_provider = cloud_provider
        self.error_type = error_type

    def __str__(self) -> str:
        message = super().__str__()
        if self.cloud_provider or self.error_type:
            return f"{self.cloud_provider} {self.error_type}: {message}".strip()
        return message


class InvalidSkyPilotConfigError(ValueError):
    """A task file, a configuration file or a value in one is not well formed."""


class ResourcesUnavailableError(Exception):
    """Nowhere that was allowed has these resources now."""

    def __init__(
        self, message: str, no_failover: bool = False, failover_history: list[Exception] | None = None
    ) -> None:
        super().__init__(message)
        self.no_failover = no_failover
        self.failover_history: list[Exception] = [] if failover_history is None else failover_history

    def with_failover_history(self, failover_history: list[Exception]) -> ResourcesUnavailableError:
        """The same exception, with what was tried."""
        self.failover_history = failover_history
        return self


class KubeAPIUnreachableError(ResourcesUnavailableError):
    """The Kubernetes API server does not answer."""


class KubernetesValidationError(Exception):
    """A pod field is not valid: `path` says where."""

    def __init__(self, path: list[str], message: str) -> None:
        super().__init__(message)
        self.path = path
        self.message = message


class InvalidCloudConfigs(Exception):
    """The cloud's own configuration does not hold together."""


class InvalidCloudCredentials(Exception):
    """The cloud does not accept the credentials."""


class InconsistentHighAvailabilityError(Exception):
    """High availability was asked of a controller that runs without it, or the reverse."""


class ProvisionPrechecksError(Exception):
    """Trying elsewhere cannot help: `reasons` are the failures that say so."""

    def __init__(self, reasons: Sequence[Exception]) -> None:
        super().__init__()
        self.reasons = reasons

    def __str__(self) -> str:
        return "; ".join(f"{type(r).__name__}: {r}" for r in self.reasons)


class ProvisionUnsupportedError(Exception):
    """The cloud cannot make what was asked."""


class ResourcesMismatchError(Exception):
    """The cluster that exists does not fit the request."""


class NoCloudAccessError(Exception):
    """No cloud is enabled that could serve the request."""


class CloudUserIdentityError(Exception):
    """The identity behind the cloud credentials cannot be told."""


class ClusterOwnerIdentityMismatchError(Exception):
    """The cluster was made by another identity or in another workspace."""


# --- managed jobs ----------------------------------------------------------------------------------------------


class ManagedJobReachedMaxRetriesError(Exception):
    """The job was started again as often as it may be."""


class ManagedJobStatusError(Exception):
    """The state of a managed job cannot be told."""


class ManagedJobUserCancelledError(Exception):
    """The user cancelled the job."""


# --- commands --------------------------------------------------------------------------------------------------


class SkyPilotExcludeArgsBaseException(Exception):
    """Base of those whose arguments do not cross the wire: the attributes do."""


class CommandFailureException(SkyPilotExcludeArgsBaseException):
    """A command could not be carried out."""

    def __init__(self, command: str, failure: str, error_msg: str, detailed_reason: str | None) -> None:
        self.command = command
        self.failure = failure
        self.error_msg = error_msg
        self.detailed_reason = detailed_reason
        shown = command if len(command) <= 100 else f"{command[:100]}..."
        super().__init__(f"Command {shown} {failure}.\n{error_msg}" if command else error_msg)


class CommandError(CommandFailureException):
    """A command ended with a non-zero code."""

    def __init__(
        self, returncode: int, command: str, error_msg: str, detailed_reason: str | None, failure: str | None = None
    ) -> None:
        self.returncode = returncode
        super().__init__(
            command, f"failed with return code {returncode}" if failure is None else failure, error_msg, detailed_reason
        )


# --- clusters --------------------------------------------------------------------------------------------------


class ClusterNotUpError(Exception):
    """The cluster exists but is not UP."""

    def __init__(self, message: str, cluster_status: Any = None, handle: Any = None) -> None:
        super().__init__(message)
        self.cluster_status = cluster_status
        self.handle = handle


class ClusterSetUpError(Exception):
    """The cluster's machines or agents could not be made ready."""


class ClusterDoesNotExist(ValueError):
    """No cluster of that name."""


class CachedClusterUnavailable(Exception):
    """A known cluster cannot be asked now."""


class NotSupportedError(Exception):
    """Not possible there."""


class FetchClusterInfoError(Exception):
    """The nodes' addresses cannot be told."""

    class Reason(enum.Enum):
        HEAD = "HEAD"
        WORKER = "WORKER"
        UNKNOWN = "UNKNOWN"

    def __init__(self, reason: FetchClusterInfoError.Reason) -> None:
        super().__init__()
        self.reason = reason


class NetworkError(Exception):
    """The network is not there."""


class ClusterStatusFetchingError(Exception):
    """What the cloud says of the cluster makes no sense."""


class InvalidClusterNameError(Exception):
    """Not a name that a cluster may have."""


class InvalidRecipeNameError(Exception):
    """Not a name that a recipe may have."""


class InvalidWorkspaceNameError(Exception):
    """Not a name that a workspace may have."""


class WorkspaceAmbiguousError(SkyPilotExcludeArgsBaseException):
    """Several workspaces would do: one must be named."""

    def __init__(self, accessible: list[str], note: str | None = None) -> None:
        self.accessible = accessible
        self.note = note
        text = f"Several workspaces are accessible ({', '.join(accessible)}); name one."
        super().__init__(f"{text} {note}" if note else text)


class RecipeAlreadyExistsError(Exception):
    """A recipe of that name exists."""


class AWSAzFetchingError(SkyPilotExcludeArgsBaseException):
    """The zones of an AWS region cannot be told."""

    class Reason(enum.Enum):
        AUTH_FAILURE = "AUTH_FAILURE"
        AZ_PERMISSION_DENIED = "AZ_PERMISSION_DENIED"

        @property
        def message(self) -> str:
            if self is AWSAzFetchingError.Reason.AUTH_FAILURE:
                return "the credentials are missing or not accepted"
            return "the right ec2:DescribeAvailabilityZones is missing"

    def __init__(self, region: str, reason: AWSAzFetchingError.Reason) -> None:
        self.region = region
        self.reason = reason
        super().__init__(f"Cannot list the availability zones of {region}: {reason.message}")


class NoClusterLaunchedError(Exception):
    """Every candidate failed before anything was made."""


class PortDoesNotExistError(Exception):
    """The port is not open on that cluster."""


# --- services, pools, policy --------------------------------------------------------------------------------


class ServeUserTerminatedError(Exception):
    """The user ended the service."""


class PoolDoesNotExistError(Exception):
    """No pool of that name."""


class UserRequestRejectedByPolicy(Exception):
    """The admin policy refused the request."""


class RestfulPolicyError(Exception):
    """The policy server failed or answered what cannot be read."""


# --- storage and volumes ------------------------------------------------------------------------------------


class StorageError(Exception):
    """Base of failures with buckets."""


class StorageSpecError(ValueError):
    """The storage as written cannot be."""


class StorageInitError(StorageError):
    """The bucket cannot be set up."""


class StorageBucketCreateError(StorageInitError):
    """The bucket cannot be made."""


class StorageBucketGetError(StorageInitError):
    """The bucket cannot be looked up."""


class StorageBucketDeleteError(StorageError):
    """The bucket cannot be deleted."""


class StorageUploadError(StorageError):
    """Files cannot be uploaded."""


class StorageSourceError(StorageSpecError):
    """The storage's source cannot be."""


class StorageNameError(StorageSpecError):
    """The storage's name cannot be."""


class StorageModeError(StorageSpecError):
    """The storage's mode cannot be."""


class StorageExternalDeletionError(StorageBucketGetError):
    """The bucket was deleted by someone else."""


class NonExistentStorageAccountError(StorageExternalDeletionError):
    """The Azure storage account is not there."""


class VolumeNotReadyError(Exception):
    """The volume cannot be attached now."""


class VolumeNotFoundError(Exception):
    """No volume of that name."""


class VolumeTopologyConflictError(Exception):
    """Two volumes lie where no one node can reach both."""


class GitError(Exception):
    """A git workdir cannot be resolved."""


# --- requests and the server ----------------------------------------------------------------------------------


class RequestCancelled(Exception):
    """The request was cancelled."""


class RequestInterruptedError(Exception):
    """The server stopped serving the request; its work goes on or is resumed."""


class RequestAlreadyExistsError(Exception):
    """The same idempotency key came with another body."""


class ApiServerConnectionError(RuntimeError):
    """The API server does not answer."""

    def __init__(self, server_url: str) -> None:
        super().__init__(f"Could not connect to the API server at {server_url}.")
        self.server_url = server_url


class ApiServerAuthenticationError(RuntimeError):
    """The API server does not accept the token."""

    def __init__(self, server_url: str) -> None:
        super().__init__(f"The API server at {server_url} refused the credentials.")
        self.server_url = server_url


class APIVersionMismatchError(RuntimeError):
    """Client and server are too far apart."""


class APINotSupportedError(RuntimeError):
    """The server is too old for this call."""


class ExecutionRetryableError(Exception):
    """The step failed in a way that time may heal; the request parks for `retry_wait_seconds`."""

    def __init__(self, message: str, hint: str, retry_wait_seconds: int) -> None:
        super().__init__(message)
        self.hint = hint
        self.retry_wait_seconds = retry_wait_seconds


class ExecutionPausedError(ExecutionRetryableError):
    """The step waits for something else to happen."""

    def __init__(self, message: str, hint: str, retry_wait_seconds: int, continue_condition: Any = None) -> None:
        super().__init__(message, hint, retry_wait_seconds)
        self.continue_condition = continue_condition


class ExecutionPoolFullError(Exception):
    """No room to work on the request now."""


class ConcurrentWorkerExhaustedError(Exception):
    """As many operations run as may."""


class PermissionDeniedError(Exception):
    """The caller may not do that."""


class NoWorkspaceAccessError(PermissionDeniedError):
    """The caller may not use that workspace."""


class ServerTemporarilyUnavailableError(Exception):
    """The server is starting or stopping."""

    def __init__(self, message: str) -> None:
        super().__init__(message)


class SkyletInternalError(Exception):
    """The node agent failed."""


class SkyletMethodNotImplementedError(Exception):
    """The node agent is too old for this call."""


class SkyletUnavailableError(Exception):
    """The node agent does not answer."""


class ClientError(Exception):
    """The client was used in a way that cannot work."""
