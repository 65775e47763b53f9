"""Which clouds the server can use, and why not the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from skyinfra.client import caller
from skyinfra.client.requests import AnsweredId, get, submit
from skyinfra.model.requests import RequestId

__all__ = ["check", "check_report", "enabled_clouds"]


def check(
    infra_list: Sequence[str] | None, verbose: bool, workspace: str | None = None
) -> RequestId[dict[str, dict[str, list[str]]]]:
    """`get` yields, by workspace, what can be used of the enabled clouds: ``{"default": {"local": ["compute"]}}``.

    Raises `ValueError` for an unknown cloud. `verbose` is SkyPilot's: here the answer always is whole.
    """
    report = check_report(infra_list, workspace)
    usable = {cloud: ["compute"] for cloud, one in report["clouds"].items() if one["enabled"]}
    return AnsweredId.of("", "check", {"status": "SUCCEEDED", "result": {report["workspace"]: usable}})


def enabled_clouds(workspace: str | None = None, expand: bool = False) -> RequestId[list[str]]:
    """`get` yields the names of the enabled clouds. `expand` has nothing to expand: no cloud here has contexts."""
    report = check_report(None, workspace)
    names = [cloud for cloud, one in report["clouds"].items() if one["enabled"]]
    return AnsweredId.of("", "enabled_clouds", {"status": "SUCCEEDED", "result": names})


def check_report(infra_list: Sequence[str] | None, workspace: str | None = None) -> dict[str, Any]:
    """``{workspace, clouds: {cloud: {enabled, reason, details}}}``, the enabled ones first."""
    body = {"infra_list": list(infra_list) if infra_list else None, **caller.about()}
    return get(submit("check", body | ({"workspace": workspace} if workspace else {})))
