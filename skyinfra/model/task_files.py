"""A task's files and volumes: what may be mounted where, and what the disk of this machine says to it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from skyinfra.model.local_checks import expand, local_path_exists
from skyinfra.model.problems import under
from skyinfra.model.storage import is_cloud_uri

if TYPE_CHECKING:
    from skyinfra.model.task import Task

__all__ = [
    "WORKDIR",
    "check_docker_login",
    "checked_volumes",
    "expanded_file_mounts",
    "expanded_workdir",
    "git_variables",
    "mounts_of",
    "overridden_workdir",
]

WORKDIR = "~/sky_workdir"

_DOCKER_LOGIN = ("SKYPILOT_DOCKER_USERNAME", "SKYPILOT_DOCKER_PASSWORD", "SKYPILOT_DOCKER_SERVER")
_SUB_PATH = re.compile(r"[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def mounts_of(file_mounts: dict[str, str] | None, cloud: bool) -> dict[str, str]:
    """The mounts whose source is in a bucket, or those whose source is not."""
    return {dst: src for dst, src in (file_mounts or {}).items() if is_cloud_uri(src) == cloud}


def check_docker_login(envs: Mapping[str, str], secrets: Mapping[str, str]) -> None:
    """Registry credentials come all or not at all, and from one place. Raises `ValueError`."""
    in_envs = [k for k in _DOCKER_LOGIN if k in envs]
    in_secrets = [k for k in _DOCKER_LOGIN if k in secrets]
    if in_envs and in_secrets:
        with under("secrets", in_secrets[0]):
            raise ValueError(f"{', '.join(_DOCKER_LOGIN)} must be all in envs or all in secrets, not in both")
    found = in_envs or in_secrets
    if found and len(found) < len(_DOCKER_LOGIN):
        missing = [k for k in _DOCKER_LOGIN if k not in found]
        with under("envs" if in_envs else "secrets", found[0]):
            raise ValueError(f"with {found[0]} there must be {', '.join(missing)}")


def checked_volumes(volumes: dict[str, Any] | None) -> dict[str, Any]:
    """A copy. Raises `ValueError`."""
    for path, volume in (volumes or {}).items():
        with under("volumes", path):
            if not isinstance(path, str) or not path:
                raise ValueError(f"volume path {path!r} must be text")
            if isinstance(volume, str) and volume:
                continue
            if not isinstance(volume, dict):
                raise ValueError(f"volume {volume!r} is neither a name nor a map")
            if not any(volume.get(k) for k in ("name", "size", "host_path")):
                raise ValueError("a volume needs a name, a size (ephemeral) or a host_path")
            sub_path = volume.get("sub_path")
            if sub_path is not None and (_SUB_PATH.fullmatch(sub_path) is None or ".." in sub_path.split("/")):
                raise ValueError(f"sub_path {sub_path!r} is not a plain relative path")
    return dict(volumes or {})


# --- mounts ------------------------------------------------------------------------------------------------------


def expanded_file_mounts(task: Task) -> dict[str, str] | None:
    """`file_mounts` with absolute local sources. Raises `ValueError`."""
    for dst in task.storage_mounts:
        with under(dst):
            _check_target(dst, task.workdir is not None)
    if task.file_mounts is None:
        return None
    out: dict[str, str] = {}
    for dst, src in task.file_mounts.items():
        with under(dst):
            _check_target(dst, task.workdir is not None)
            out[dst] = _expanded_source(src)
    return out


def _check_target(dst: str, has_workdir: bool) -> None:
    if is_cloud_uri(dst):
        raise ValueError(f"file mount target {dst!r} is a bucket: a target is a path on the node")
    if dst.endswith("/"):
        raise ValueError(f"file mount target {dst!r} may not end in /")
    if has_workdir and dst in (WORKDIR, "sky_workdir", "./sky_workdir"):
        raise ValueError(f"file mount target {dst!r} is where the workdir goes")


def _expanded_source(src: str) -> str:
    if src.endswith("/"):
        raise ValueError(f"file mount source {src!r} may not end in /")
    if is_cloud_uri(src):
        return src
    if not local_path_exists(src):
        raise ValueError(f"file mount source {src!r} does not exist")
    return expand(src)


# --- workdir -----------------------------------------------------------------------------------------------------


def expanded_workdir(workdir: str | dict[str, Any] | None) -> str | dict[str, Any] | None:
    """Absolute. Raises `ValueError` when it is no folder; a git workdir stays as it is."""
    if workdir is None or isinstance(workdir, dict):
        return workdir
    path = expand(workdir)
    if not os.path.exists(path):
        raise ValueError(f"workdir {workdir!r} does not exist ({path})")
    if not os.path.isdir(path):
        raise ValueError(f"workdir {workdir!r} is not a folder; use file_mounts for single files")
    return path


def overridden_workdir(
    current: str | dict[str, Any] | None, workdir: str | None, git_url: str | None, git_ref: str | None
) -> str | dict[str, Any] | None:
    """The workdir once flags are applied. Raises `ValueError`."""
    if workdir is not None and (git_url is not None or git_ref is not None):
        raise ValueError("--workdir and --git-url, --git-ref exclude each other")
    if workdir is not None:
        return workdir
    if git_url is not None:
        ref = git_ref or (current.get("ref") if isinstance(current, dict) else None)
        return {"url": git_url, **({"ref": ref} if ref else {})}
    if git_ref is not None:
        if not isinstance(current, dict):
            raise ValueError("--git-ref needs a git workdir: give --git-url")
        return {**current, "ref": git_ref}
    return current


def git_variables(
    workdir: str | dict[str, Any] | None, environ: Mapping[str, str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Variables and secrets that a git workdir adds to its task.

    A ref of 40 hex digits is a commit; any other is handed on as a branch, and the node's git finds a tag by it too.
    """
    if not isinstance(workdir, dict):
        return {}, {}
    envs = {"GIT_URL": workdir["url"]}
    ref = workdir.get("ref")
    if ref:
        envs["GIT_COMMIT_HASH" if _COMMIT.fullmatch(ref) else "GIT_BRANCH"] = ref
    secrets = {k: environ[k] for k in ("GIT_TOKEN", "GIT_SSH_KEY") if environ.get(k)}
    key_path = environ.get("GIT_SSH_KEY_PATH")
    if key_path and "GIT_SSH_KEY" not in secrets:
        try:
            with open(expand(key_path), encoding="utf-8") as file:
                secrets["GIT_SSH_KEY"] = file.read()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"GIT_SSH_KEY_PATH: {key_path} cannot be read: {error}") from error
    return envs, secrets
