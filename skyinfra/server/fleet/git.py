"""A workdir that is a git repository: fetched by the nodes themselves, all at the same commit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from skyinfra.model.exceptions import GitError
from skyinfra.runtime.protocol import GitCheckout, GitState
from skyinfra.server.fleet.ports import Agent, AgentError

__all__ = ["VARIABLES", "check_out", "is_git"]

WORKDIR = "~/sky_workdir"
VARIABLES = ("GIT_URL", "GIT_COMMIT_HASH", "GIT_BRANCH", "GIT_TAG")


def is_git(task: Mapping[str, Any]) -> bool:
    return isinstance(task.get("workdir"), dict)


async def check_out(agent: Agent, task: Mapping[str, Any], commit: str = "") -> dict[str, str]:
    """Have it done on one node; what the job finds of it in its environment (`VARIABLES`). Idempotent.

    `commit`: what the first node was given. Raises `GitError`.
    """
    workdir, secrets = task["workdir"], task.get("secrets") or {}
    wanted = GitCheckout(
        url=workdir["url"],
        dest=WORKDIR,
        ref=str(workdir.get("ref") or ""),
        commit=commit,
        token=secrets.get("GIT_TOKEN") or "",
        ssh_key=secrets.get("GIT_SSH_KEY") or "",
    )
    try:
        while not (state := await agent.check_out(wanted)).done:
            pass  # the agent answers after a while; it goes on
    except AgentError as error:
        if error.type in ("git", "unsafe_path"):
            raise GitError(f"workdir: {error}") from error
        raise
    return _variables(workdir["url"], state)


def _variables(url: str, state: GitState) -> dict[str, str]:
    values = (url, state.commit, state.branch, state.tag)
    return {name: value for name, value in zip(VARIABLES, values, strict=True) if value}
