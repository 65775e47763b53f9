"""People on a server: their tokens and workspaces."""

from __future__ import annotations

from typing import Any

from skyinfra.client import transport
from skyinfra.client.requests import AnsweredId
from skyinfra.model.records import Record
from skyinfra.model.requests import RequestId

__all__ = [
    "create_token",
    "get_user_workspace",
    "list_tokens",
    "revoke_token",
    "set_preferred_workspace",
    "workspaces",
]


def create_token(name: str, role: str = "user", user: str | None = None, expires_in_s: float | None = None) -> Record:
    """A new token, in the field `token`: it is shown this once. For another `user` only admins may make one.

    Raises `PermissionDeniedError`, and `ValueError` that names the argument.
    """
    body = {"name": name, "role": role, "user": user, "expires_in_s": expires_in_s}
    return Record(transport.call("POST", "/v1/tokens", body).json())


def list_tokens(all_users: bool = False) -> list[Record]:
    """The caller's tokens, or everybody's for an admin. The tokens themselves are not known to anybody."""
    where = transport.path("tokens", all_users=1 if all_users else None)
    return [Record(row) for row in transport.call("GET", where).json()["tokens"]]


def revoke_token(token_id: str) -> Record:
    """Make a token good for nothing. Raises `ValueError` for an unknown one, `PermissionDeniedError`."""
    return Record(transport.call("DELETE", transport.path("tokens", token_id)).json())


def set_preferred_workspace(preferred: str | None) -> dict[str, Any]:
    """Work in this workspace whenever none is named; None takes that back. Kept by the server, for the user.

    Raises `InvalidWorkspaceNameError`, `NoWorkspaceAccessError`, `ValueError` for one that does not exist.
    """
    return transport.call("PUT", "/v1/workspaces/preferred", {"workspace": preferred}).json()


def get_user_workspace(requested: str | None = None) -> dict[str, Any]:
    """`{workspace, preferred, accessible}`: the workspace that a call would use, were `requested` named in it.

    Raises as `set_preferred_workspace`, and `WorkspaceAmbiguousError`.
    """
    return transport.call("GET", transport.path("workspaces", requested=requested)).json()


def workspaces() -> RequestId[dict[str, Any]]:
    """`get` yields the workspaces that are open to the caller, by name."""
    found = {name: {} for name in get_user_workspace()["accessible"]}
    return AnsweredId.of("", "workspaces", {"status": "SUCCEEDED", "result": found})
