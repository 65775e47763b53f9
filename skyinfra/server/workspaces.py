"""Workspaces: which there are, who may enter them, and which one is meant when a caller names none.

They are declared in the server's ``config.yaml``::

    workspaces:
      research: {private: true, allowed_users: [ann, 1a2b3c4d], read_access: [bob]}

``default`` always exists. Once any is declared, only declared ones (and ``default``) can be used; before that a
workspace is no more than a name. The file is read again when it changes; a broken one leaves the last good declaration
in force.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from skyinfra.model.config import Config
from skyinfra.model.exceptions import (
    InvalidWorkspaceNameError,
    NotSupportedError,
    WorkspaceAmbiguousError,
    with_hint,
)
from skyinfra.model.states import RoleName
from skyinfra.server import log as server_log
from skyinfra.server.config import ServerConfig
from skyinfra.server.identity import Principal, Thing, authorize
from skyinfra.server.settings import DEFAULT_WORKSPACE
from skyinfra.store import clusters as cluster_rows
from skyinfra.store import tokens as token_rows
from skyinfra.store.database import Database

__all__ = ["Workspaces", "check_workspace_name"]

NAME = re.compile(r"[a-z]([-_a-z0-9]*[a-z0-9])?")
MAX_NAME = 63
_say = server_log.get("workspaces")


def check_workspace_name(name: str) -> None:
    """Raises `InvalidWorkspaceNameError`."""
    if len(name) > MAX_NAME or NAME.fullmatch(name) is None:
        raise with_hint(
            InvalidWorkspaceNameError(f"workspace name {name!r} is not valid"),
            f"it starts with a lower-case letter, goes on with a-z, 0-9, '-' or '_', and has at most {MAX_NAME} "
            "characters",
        )


class Workspaces:
    def __init__(self, config: ServerConfig, db: Database) -> None:
        self._config = config
        self._db = db
        self._declared: dict[str, dict[str, Any]] = {}

    def declared(self) -> Mapping[str, dict[str, Any]]:
        """By name. A look at the file's date; it is read again when that has changed."""
        try:
            self._declared = _declared_in(self._config.current())
        except (OSError, ValueError, NotSupportedError) as error:
            _say.error("the declaration of workspaces is broken; the last good one stays in force", why=str(error))
        return self._declared

    def fenced(self, principal: Principal) -> Principal:
        """The principal with the workspaces that are closed to it."""
        if principal.role is RoleName.ADMIN:
            return principal
        me = {principal.user_id, principal.user_name}
        private = {name: one for name, one in self.declared().items() if one.get("private")}
        closed = {name for name, one in private.items() if not me & set(one.get("allowed_users") or ())}
        readable = {name for name in closed if me & set(private[name].get("read_access") or ())}
        return dataclasses.replace(principal, barred=frozenset(closed - readable), read_only=frozenset(readable))

    def accessible(self, principal: Principal) -> list[str]:
        """Declared ones that are open to the caller, ``default`` first."""
        names = [DEFAULT_WORKSPACE, *sorted(set(self.declared()) - {DEFAULT_WORKSPACE})]
        return [name for name in names if name not in principal.barred]

    def check(self, principal: Principal, verb: str, name: str) -> str:
        """`name`, if it is one and the caller may do `verb` there.

        Raises `InvalidWorkspaceNameError`, `NoWorkspaceAccessError`, and `ValueError` for one that is not declared.
        """
        check_workspace_name(name)
        authorize(principal, verb, Thing(workspace=name))
        if self.declared() and name != DEFAULT_WORKSPACE and name not in self.declared():
            known = ", ".join(self.accessible(principal))
            raise with_hint(
                ValueError(f"there is no workspace '{name}'; there are: {known}"),
                "an admin declares workspaces in config.yaml of the server, under `workspaces`",
            )
        return name

    async def preferred(self, principal: Principal) -> str | None:
        return await self._db.read(lambda db: token_rows.preferred_workspace(db, principal.user_id))

    async def prefer(self, principal: Principal, name: str | None) -> None:
        """Raises as `check`."""
        authorize(principal, "prefer workspace")
        if name is not None:
            self.check(principal, "prefer workspace", name)
        await self._db.write(lambda db: token_rows.prefer_workspace(db, principal.user_id, name), patient=False)

    async def usual(self, principal: Principal) -> str:
        """Where a caller works who names no workspace: the preferred one, else ``default``, else the only one.

        Raises `WorkspaceAmbiguousError` when several are left, `NoWorkspaceAccessError` when none is.
        """
        open_to = self.accessible(principal)
        preferred = await self.preferred(principal)
        if preferred is not None and preferred not in principal.barred:
            return preferred
        if DEFAULT_WORKSPACE in open_to:
            return DEFAULT_WORKSPACE
        if not open_to:
            authorize(principal, "use", Thing(workspace=DEFAULT_WORKSPACE))
        if len(open_to) > 1:
            raise with_hint(
                WorkspaceAmbiguousError(open_to), "use --workspace NAME, or `skyinfra workspace use NAME` once"
            )
        return open_to[0]

    async def of(self, principal: Principal, verb: str, requested: str | None, cluster_name: str | None) -> str:
        """The workspace of a call. One that names a cluster but no workspace means the cluster of that name.

        `cluster_name` is None when the call makes what it names. Raises as `check` and `usual`.
        """
        if requested:
            return self.check(principal, verb, requested)
        found: list[str] = []
        if cluster_name is not None:
            names = await self._db.read(lambda db: cluster_rows.workspaces_with(db, cluster_name))
            found = [name for name in names if name not in principal.barred]
        if len(found) == 1:
            workspace = found[0]
        else:
            workspace = await self.usual(principal)
            if len(found) > 1 and workspace not in found:
                note = f"Cluster '{cluster_name}' is in each of them."
                raise with_hint(WorkspaceAmbiguousError(found, note), "use --workspace NAME")
        authorize(principal, verb, Thing(workspace=workspace))
        return workspace


def _declared_in(config: Config) -> dict[str, dict[str, Any]]:
    """Raises `ValueError` that names the key."""
    section = config.get("workspaces") or {}
    if not isinstance(section, dict):
        raise ValueError("workspaces: must be a map of names")
    found: dict[str, dict[str, Any]] = {}
    for name, one in section.items():
        if not isinstance(name, str) or NAME.fullmatch(name) is None or len(name) > MAX_NAME:
            raise ValueError(f"workspaces: {name!r} is not a name that a workspace may have")
        if one is not None and not isinstance(one, dict):
            raise ValueError(f"workspaces.{name}: must be a map")
        for key in ("allowed_users", "read_access"):
            if not isinstance((one or {}).get(key, []), list):
                raise ValueError(f"workspaces.{name}.{key}: must be a list of users")
        found[name] = dict(one or {})
    return found
