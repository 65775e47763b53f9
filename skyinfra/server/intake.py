"""From the bytes of ``POST /v1/requests/{verb}`` to a request that can be stored: validated, named, fit for display.

The display copy has no value of an env or a secret in it, and no configuration, and neither has the
entrypoint: both are shown and kept.
"""

from __future__ import annotations

import copy
import json
import re
import secrets
import uuid
from typing import Any

from pydantic import ValidationError

from skyinfra.model.names import default_cluster_name
from skyinfra.server.answers import HttpError
from skyinfra.server.identity import Principal
from skyinfra.server.requests.engine import Incoming
from skyinfra.wire.bodies import VERB_BODIES
from skyinfra.wire.errors import explain

__all__ = ["READ_VERBS", "incoming", "parse", "redacted_task"]

READ_VERBS = frozenset(
    {
        "check",
        "cost_report",
        "endpoints",
        "eject",
        "history",
        "job_status",
        "list_accelerator_counts",
        "list_accelerators",
        "optimize",
        "orphans",
        "queue",
        "ssh_config",
        "ssh_down",
        "ssh_status",
        "ssh_up",
        "stack_env",
        "status",
    }
)
HIDDEN = "<redacted>"
_OPTION = re.compile(r"(--(?:env|secret)[= ]['\"]?[A-Za-z_][A-Za-z0-9_]*)=(?:'[^']*'|\"[^\"]*\"|\S+)")


def parse(verb: str, raw: bytes) -> dict[str, Any]:
    """The body of a verb, with its defaults. Raises `HttpError`: 404 for an unknown verb, 400 for a bad body."""
    model = VERB_BODIES.get(verb)
    if model is None:
        known = ", ".join(VERB_BODIES)
        raise HttpError(404, "ValueError", f"there is no verb {verb!r}", f"the verbs are {known}")
    try:
        return model.model_validate_json(raw or b"{}").model_dump()
    except ValidationError as error:
        raise HttpError(400, "ValueError", explain(verb, error)) from None


def incoming(verb: str, body: dict[str, Any], principal: Principal, workspace: str, key: str | None) -> Incoming:
    """A request ready to be stored. A cluster without a name gets one here, so that its lane is known."""
    unique = str(uuid.uuid4())
    stable = {k: v for k, v in body.items() if k not in ("entrypoint", "user")}
    name = body["cluster_name"] or _made_up_name(principal)
    entrypoint = _redacted_entrypoint(body)
    display = {**body, "cluster_name": name, "entrypoint": entrypoint}
    display.pop("config", None)  # may hold what must not be shown, and shows nobody what is needed
    if "task" in body:
        display["task"] = redacted_task(body["task"])
    return Incoming(
        id=unique,
        key=key or unique,
        verb=verb,
        principal=principal,
        workspace=workspace,
        cluster_name=name,
        body=body,
        display=display,
        entrypoint=entrypoint,
        fingerprint=json.dumps([verb, stable], sort_keys=True).encode(),
        blobs=tuple(blob["digest"] for blob in body.get("blobs", {}).values()),
    )


def _made_up_name(principal: Principal) -> str:
    return default_cluster_name(secrets.token_hex(2), principal.user_name[:40])


def redacted_task(task: dict[str, Any]) -> dict[str, Any]:
    """A copy whose envs and secrets keep their names only."""
    shown = copy.deepcopy(task)
    for part in ("envs", "secrets"):
        values = shown.get(part)
        if isinstance(values, dict):
            shown[part] = dict.fromkeys(values, HIDDEN)
    return shown


def _redacted_entrypoint(body: dict[str, Any]) -> str:
    text = _OPTION.sub(rf"\1={HIDDEN}", body.get("entrypoint") or "")
    task = body.get("task") or {}
    values = [str(v) for part in ("envs", "secrets") if isinstance(task.get(part), dict) for v in task[part].values()]
    for value in sorted(values, key=len, reverse=True):
        if len(value) >= 4:  # a shorter one would blank out ordinary words; as an option it is gone already
            text = text.replace(value, HIDDEN)
    return text
