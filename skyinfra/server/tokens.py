"""Bearer tokens: the state folder's own, and those given to people (``sky_…``), of which only the SHA-256 is kept.

A token that was good a moment ago is not looked up again; one that is revoked here stops at once, one that another
server revoked within `REMEMBER_S`. Wrong tokens are counted per address, and too many are refused before any lookup.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from skyinfra.model.exceptions import PermissionDeniedError, with_hint
from skyinfra.model.states import RoleName
from skyinfra.runtime.boundary import boundary
from skyinfra.server import log as server_log
from skyinfra.server.answers import HttpError
from skyinfra.server.identity import Principal, Thing, authorize
from skyinfra.server.vault import private_folder, write_private
from skyinfra.server.workspaces import Workspaces
from skyinfra.store import tokens as rows
from skyinfra.store.database import Database, NoSpace

__all__ = ["BadTokens", "Tokens", "user_id_of"]

PREFIX = "sky_"
REMEMBER_S = 5.0
REMEMBERED = 1000
NOTE_USE_EVERY_S = 60.0
_say = server_log.get("tokens")


class BadTokens:
    """How many wrong tokens came from which address of late. Bounded: the oldest address is forgotten first."""

    def __init__(
        self,
        limit: int = 20,
        window_s: float = 60.0,
        addresses: int = 4096,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limit, self._window_s, self._addresses, self._clock = limit, window_s, addresses, clock
        self._seen: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def wait_s(self, address: str) -> float:
        """0 when tokens of this address are looked at, else seconds until they are again."""
        since, count = self._seen.get(_network(address), (0.0, 0))
        left = since + self._window_s - self._clock()
        return left if count >= self._limit and left > 0 else 0.0

    def note(self, address: str) -> None:
        key, now = _network(address), self._clock()
        since, count = self._seen.pop(key, (now, 0))
        if now - since >= self._window_s:
            since, count = now, 0
        self._seen[key] = (since, count + 1)
        while len(self._seen) > self._addresses:
            self._seen.popitem(last=False)

    def __len__(self) -> int:
        return len(self._seen)


def _network(address: str) -> str:
    """An IPv6 client has 2**64 addresses of its own: its network counts as one."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((parsed, 64), strict=False).network_address)
    return address


def user_id_of(name: str, owner: Principal) -> str:
    """8 hex characters; the owner of the state folder keeps theirs, so that a token of theirs finds their clusters."""
    return owner.user_id if name == owner.user_name else hashlib.sha256(name.encode()).hexdigest()[:8]


class Tokens:
    """Resolves bearer tokens to principals; makes, lists and revokes them."""

    def __init__(
        self,
        token: str,
        owner: Principal,
        db: Database,
        workspaces: Workspaces,
        clock: Callable[[], float] = time.time,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        self._token = token.encode()
        self._owner = owner
        self._db = db
        self._workspaces = workspaces
        self._clock = clock
        self._ticks = ticks
        self._known: OrderedDict[str, tuple[float, Any]] = OrderedDict()
        self._noted: dict[str, float] = {}
        self.bad = BadTokens(clock=ticks)

    @classmethod
    def open(cls, path: Path, owner: Principal, db: Database, workspaces: Workspaces) -> Tokens:
        """With the state folder's token, made at the first start. Raises `RuntimeError` when its file is empty."""
        private_folder(path.parent)
        try:
            token = path.read_text().strip()
        except FileNotFoundError:
            token = secrets.token_urlsafe(32)
            write_private(path, token.encode() + b"\n")
        if not token:
            raise RuntimeError(f"{path} is empty: remove it to have a new one made")
        return cls(token, owner, db, workspaces)

    # --- who is it -----------------------------------------------------------------------------------------------

    async def resolve(self, authorization: bytes | None, address: str) -> Principal | None:
        """None for a missing or wrong token. Raises `HttpError` 429 after too many wrong ones from `address`."""
        if authorization is None or authorization[:7].lower() != b"bearer ":
            return None
        given = authorization[7:].strip()
        if hmac.compare_digest(given, self._token):
            return self._owner
        digest = hashlib.sha256(given).hexdigest()
        row = self._remembered(digest)
        if row is None:
            wait_s = self.bad.wait_s(address)
            if wait_s:
                said = f"too many wrong tokens from {address}; tokens are looked at again in {wait_s:.0f} s"
                raise HttpError(429, "PermissionDeniedError", said, "is the token right? `skyinfra api login` keeps it")
            row = await self._look_up(digest) if given.startswith(PREFIX.encode()) else None
            if row is None:
                self.bad.note(address)
                return None
        principal = Principal(row.user_id, row.user_name, "token", RoleName(row.role))
        return self._workspaces.fenced(principal)

    def _remembered(self, digest: str) -> Any:
        at, row = self._known.get(digest, (0.0, None))
        if row is None or self._ticks() - at > REMEMBER_S or self._expired(row):
            return None
        return row

    def _expired(self, row: Any) -> bool:
        return row.expires_at is not None and row.expires_at <= self._clock()

    async def _look_up(self, digest: str) -> Any:
        row = await self._db.read(lambda db: rows.by_digest(db, digest))
        self._known.pop(digest, None)
        if row is None or row.revoked_at is not None or self._expired(row):
            return None
        self._known[digest] = (self._ticks(), row)
        while len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        await self._note_use(row.id)
        return row

    async def _note_use(self, token_id: str) -> None:
        if self._ticks() - self._noted.get(token_id, -NOTE_USE_EVERY_S) < NOTE_USE_EVERY_S:
            return
        self._noted[token_id] = self._ticks()
        try:
            await self._db.write(lambda db: rows.used(db, token_id, self._clock()), patient=False)
        except (SQLAlchemyError, NoSpace) as error:  # a full disk must not lock readers out
            _say.warning("the use of a token was not noted", id=token_id, error=str(error))

    # --- administration --------------------------------------------------------------------------------------------

    async def create(
        self, principal: Principal, name: str, role: RoleName, user: str | None, expires_in_s: float | None
    ) -> tuple[str, Any]:
        """The token, shown this once, and its row. Users may make tokens for themselves, with no more than their role.

        Raises `PermissionDeniedError`, and `ValueError` for a name or a time that is none.
        """
        if not name.strip() or len(name) > 80:
            raise ValueError("name: a token needs a name of at most 80 characters")
        if expires_in_s is not None and expires_in_s <= 0:
            raise ValueError("expires_in_s: must be more than 0")
        user_name = user or principal.user_name
        authorize(principal, "make tokens" if user_name == principal.user_name else "administer tokens")
        if principal.role is not RoleName.ADMIN and role is RoleName.ADMIN:
            raise with_hint(
                PermissionDeniedError(f"a {principal.role.value} cannot make a token with the role admin"),
                "leave --role out, or ask an admin",
            )
        now, token_id = self._clock(), secrets.token_hex(4)
        token = PREFIX + secrets.token_urlsafe(32)
        new = rows.NewToken(
            id=token_id,
            name=name.strip(),
            digest=hashlib.sha256(token.encode()).hexdigest(),
            user_id=principal.user_id if user_name == principal.user_name else user_id_of(user_name, self._owner),
            user_name=user_name,
            role=role.value,
            created_by=principal.user_name,
            created_at=now,
            expires_at=None if expires_in_s is None else now + expires_in_s,
        )
        boundary("server.token.before")
        await self._db.write(lambda db: rows.add(db, new), durable=True, patient=False)
        boundary("server.token.recorded")
        return token, await self._db.read(lambda db: rows.by_id(db, token_id))

    async def listed(self, principal: Principal, all_users: bool) -> list[Any]:
        """Raises `PermissionDeniedError` when others' are asked for by someone who is no admin."""
        authorize(principal, "administer tokens" if all_users else "see tokens")
        return await self._db.read(lambda db: rows.listed(db, None if all_users else principal.user_id))

    async def revoke(self, principal: Principal, token_id: str) -> Any:
        """The row of the token, which is good for nothing from here on. Idempotent.

        Raises `HttpError` 404 and `PermissionDeniedError`.
        """
        row = await self._db.read(lambda db: rows.by_id(db, token_id))
        if row is None:
            raise HttpError(404, "ValueError", f"there is no token {token_id!r}", "`skyinfra api token list` shows ids")
        authorize(
            principal,
            "make tokens" if row.user_id == principal.user_id else "administer tokens",
            Thing(owner=row.user_id),
        )
        await self._db.write(lambda db: rows.revoke(db, token_id, self._clock()), durable=True, patient=False)
        self._known.pop(row.digest, None)
        return await self._db.read(lambda db: rows.by_id(db, token_id))
