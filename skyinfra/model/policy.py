"""What an organisation's rule about requests gets and gives back, by SkyPilot's names: values, nothing is applied here.

A policy is a class with `validate_and_mutate`; it raises to refuse. This server does not call any yet and refuses a
configuration that names one, so that no rule is taken for granted that is not enforced.
"""

from __future__ import annotations

import abc
import json
from dataclasses import asdict, dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from skyinfra.model.config import Config

if TYPE_CHECKING:
    from skyinfra.model.task import Task

__all__ = [
    "AdminPolicy",
    "AdminPolicyRequestName",
    "MutatedUserRequest",
    "RequestOptions",
    "UserIdentity",
    "UserRequest",
]


class AdminPolicyRequestName(str, Enum):  # noqa: UP042 - `StrEnum` prints otherwise than SkyPilot's
    """What is asked for when a policy is consulted."""

    VALIDATE = "validate"
    OPTIMIZE = "optimize"
    CLUSTER_LAUNCH = "launch"
    CLUSTER_EXEC = "exec"
    JOBS_LAUNCH = "jobs.launch"
    JOBS_LAUNCH_CONTROLLER = "jobs.launch_controller"
    JOBS_POOL_APPLY = "jobs.pool_apply"
    JOBS_LAUNCH_CLUSTER = "jobs.launch_cluster"
    SERVE_UP = "serve.up"
    SERVE_LAUNCH_CONTROLLER = "serve.launch_controller"
    SERVE_UPDATE = "serve.update"
    SERVE_LAUNCH_REPLICA = "serve.launch_replica"


@dataclass
class RequestOptions:
    """What a launch was asked with, beside its task."""

    cluster_name: str | None = None
    idle_minutes_to_autostop: int | None = None
    down: bool = False
    dryrun: bool = False


@dataclass
class UserIdentity:
    """Who asks."""

    id: str
    name: str | None = None


@dataclass
class UserRequest:
    """What a policy is shown."""

    task: Task
    skypilot_config: Config
    request_name: AdminPolicyRequestName
    request_options: RequestOptions | None = None
    at_client_side: bool = False
    user: UserIdentity | None = None
    client_api_version: int | None = None
    client_version: str | None = None

    def encode(self) -> str:
        """As JSON, for a policy that is asked over HTTP. Secrets are in it in clear: it is the task."""
        return json.dumps(
            {
                "task": self.task.to_yaml_config(),
                "skypilot_config": dict(self.skypilot_config),
                "request_name": self.request_name.value,
                "request_options": None if self.request_options is None else asdict(self.request_options),
                "at_client_side": self.at_client_side,
                "user": None if self.user is None else asdict(self.user),
                "client_api_version": self.client_api_version,
                "client_version": self.client_version,
            }
        )

    @classmethod
    def decode(cls, body: str) -> UserRequest:
        """`encode` read back. Raises `ValueError` for what is not one."""
        from skyinfra.model.task import Task

        told = _map(body)
        try:
            options, user = told.get("request_options"), told.get("user")
            return cls(
                Task.from_yaml_config(told["task"]),
                Config.from_dict(told["skypilot_config"]),
                AdminPolicyRequestName(told["request_name"]),
                None if options is None else RequestOptions(**options),
                bool(told.get("at_client_side")),
                None if user is None else UserIdentity(**user),
                told.get("client_api_version"),
                told.get("client_version"),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a user request: {error}") from error


@dataclass
class MutatedUserRequest:
    """What a policy makes of it."""

    task: Task
    skypilot_config: Config

    def encode(self) -> str:
        """As JSON."""
        return json.dumps({"task": self.task.to_yaml_config(), "skypilot_config": dict(self.skypilot_config)})

    @classmethod
    def decode(cls, mutated_user_request_body: str, original_request: UserRequest) -> MutatedUserRequest:
        """`encode` read back; what the answer leaves out stays as it was. Raises `ValueError` for what is not one."""
        from skyinfra.model.task import Task

        told = _map(mutated_user_request_body)
        task, config = told.get("task"), told.get("skypilot_config")
        return cls(
            original_request.task if task is None else Task.from_yaml_config(task),
            original_request.skypilot_config if config is None else Config.from_dict(config),
        )


class AdminPolicy(abc.ABC):
    """A rule. Write `validate_and_mutate` in a subclass."""

    @classmethod
    @abc.abstractmethod
    def validate_and_mutate(cls, user_request: UserRequest) -> MutatedUserRequest:
        """The request as it may be carried out. Raise anything to refuse it."""

    def apply(self, user_request: UserRequest) -> MutatedUserRequest:
        """What whoever enforces the policy calls."""
        return self.validate_and_mutate(user_request)


def _map(body: str) -> dict[str, Any]:
    told: Any = json.loads(body)
    if not isinstance(told, dict):
        raise ValueError("not a map")
    return told
