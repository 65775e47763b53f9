"""Who asks, and whether they may: one `Principal` per call, one `authorize` for every verb and object."""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skyinfra.model.exceptions import PermissionDeniedError
from skyinfra.server.vault import private_folder, write_private

__all__ = ["Principal", "Tokens", "authorize", "ensure_server_id"]


@dataclass(frozen=True)
class Principal:
    """The caller. `kind`: ``local`` = holder of the state folder's token; ``system`` = the server itself."""

    user_id: str
    user_name: str
    kind: str = "local"


SYSTEM = Principal("skyinfra-system", "skyinfra-system", "system")


class Tokens:
    """Resolves a bearer token to a principal. The token file is made at the first start."""

    def __init__(self, token: str, owner: Principal) -> None:
        self._token = token.encode()
        self._owner = owner

    @classmethod
    def open(cls, path: Path, owner: Principal) -> Tokens:
        private_folder(path.parent)
        try:
            token = path.read_text().strip()
        except FileNotFoundError:
            token = secrets.token_urlsafe(32)
            write_private(path, token.encode() + b"\n")
        if not token:
            raise RuntimeError(f"{path} is empty: remove it to have a new one made")
        return cls(token, owner)

    def resolve(self, authorization: bytes | None) -> Principal | None:
        """None for a missing or wrong token; compared in constant time."""
        if authorization is None or authorization[:7].lower() != b"bearer ":
            return None
        return self._owner if hmac.compare_digest(authorization[7:].strip(), self._token) else None


def authorize(principal: Principal, verb: str, owner: Any = None) -> None:
    """Raises `PermissionDeniedError` when `principal` may not do `verb` to something of `owner` (a user id, or None).

    The holder of a state folder's token owns all that is in it; roles come with other kinds of principals.
    """
    if principal.kind not in ("local", "system"):
        raise PermissionDeniedError(f"{principal.user_name} may not {verb} what belongs to {owner}")


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
