"""Who asks, and whether they may: one `Principal` per call, one `authorize` for every verb and thing.

`admin` may all; `user` may all but what administers the server or belongs to others; `viewer` may what only looks. On
top of the role, a private workspace is closed to those whom it does not name. Tokens are `tokens`' business.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path

from skyinfra.model.exceptions import NoWorkspaceAccessError, PermissionDeniedError, with_hint
from skyinfra.model.states import RoleName
from skyinfra.server.vault import write_private

__all__ = ["SYSTEM", "USER_MAY_NOT", "VIEWER_MAY", "Principal", "Thing", "authorize", "ensure_server_id"]


@dataclass(frozen=True)
class Principal:
    """The caller. `kind`: ``local`` = holder of the state folder's token; ``token``; ``system`` = the server itself."""

    user_id: str
    user_name: str
    kind: str = "local"
    role: RoleName = RoleName.ADMIN
    barred: frozenset[str] = frozenset()
    """Workspaces it may not even look at."""
    read_only: frozenset[str] = frozenset()
    """Workspaces it may only look at."""


@dataclass(frozen=True)
class Thing:
    """What a verb is done to: where it is and whose, as far as that matters for the verb."""

    workspace: str | None = None
    owner: str | None = None
    """A user id."""


SYSTEM = Principal("skyinfra-system", "skyinfra-system", "system")
NOTHING = Thing()

#: What only looks. A verb that is not here is closed to viewers.
VIEWER_MAY = frozenset(
    {
        "check",
        "cost_report",
        "diff",
        "eject",
        "endpoints",
        "history",
        "job_status",
        "list_accelerator_counts",
        "list_accelerators",
        "logs",
        "optimize",
        "prefer workspace",
        "queue",
        "see requests",
        "see tokens",
        "see workspaces",
        "ssh_config",
        "ssh_status",
        "stack_env",
        "status",
    }
)
#: What administers the server, or reaches into what is others'.
USER_MAY_NOT = frozenset(
    {
        "administer tokens",
        "adopt",
        "cancel everybody's requests",
        "doctor",
        "orphans",
        "server log",
        "shutdown",
        "ssh_down",
        "ssh_up",
    }
)


def authorize(principal: Principal, verb: str, thing: Thing = NOTHING) -> None:
    """Raises `PermissionDeniedError` when `principal` may not do `verb` to `thing`; `NoWorkspaceAccessError`, a kind of
    it, when its workspace is closed to them."""
    if principal.kind == "system":
        return
    workspace = thing.workspace
    if workspace in principal.barred or (workspace in principal.read_only and verb not in VIEWER_MAY):
        may = "only look at" if workspace in principal.read_only else "not use"
        raise with_hint(
            NoWorkspaceAccessError(f"{principal.user_name} may {may} workspace '{workspace}'"),
            "`skyinfra workspace info` lists the workspaces that are open to you; an admin can add you to this one",
        )
    if principal.role is RoleName.ADMIN:
        return
    allowed = verb in VIEWER_MAY if principal.role is RoleName.VIEWER else verb not in USER_MAY_NOT
    if not allowed:
        raise with_hint(
            PermissionDeniedError(f"{principal.user_name} has the role {principal.role.value}, which may not: {verb}"),
            "ask an admin of the server",
        )
    if verb == "cancel" and thing.owner not in (None, principal.user_id):
        raise with_hint(
            PermissionDeniedError("the request belongs to another user"), "its owner or an admin can cancel it"
        )


def ensure_server_id(path: Path) -> str:
    """The 8 hex characters that mark everything made by this state folder."""
    try:
        known = path.read_text().strip()
    except FileNotFoundError:
        known = ""
    if not known:
        known = secrets.token_hex(4)
        write_private(path, known.encode() + b"\n")
    return known
