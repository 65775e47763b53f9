"""SkyPilot verbs that skyinfra does not have yet: its signatures, and one honest answer.

NOT IMPLEMENTED, each of them. A verb leaves this file in the change that makes it work.
"""

from __future__ import annotations

from typing import NoReturn


def missing(name: str) -> Exception:
    """The error for something of SkyPilot's that is not here yet."""
    from skyinfra.model.exceptions import NotSupportedError

    return NotSupportedError(f"{name} is not in skyinfra yet")


def _refuse(name: str) -> NoReturn:
    raise missing(f"sky.{name}")


def storage_ls() -> NoReturn:
    _refuse("storage_ls")


def storage_delete(name: str) -> NoReturn:
    _refuse("storage_delete")


def create_debug_dump(
    request_ids: list[str] | None = None,
    cluster_names: list[str] | None = None,
    managed_job_ids: list[int] | None = None,
    recent_minutes: float | None = None,
) -> NoReturn:
    _refuse("create_debug_dump")


def download_debug_dump(dump_filename: str, local_path: str | None = None) -> NoReturn:
    _refuse("download_debug_dump")
