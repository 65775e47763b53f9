"""Secrets: a type that cannot be printed, and a vault that seals values for the database.

Envelope encryption: each value has a data key of its own, sealed by the key in `keys/secrets.key` (0600): the key
file can be rotated without reading any value. Refuses to store anything: that is ``skyinfra.store.secrets``.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from skyinfra.runtime.boundary import boundary

__all__ = ["Secret", "Vault", "private_folder", "write_private"]

_KEY = 32
_NONCE = 12
_TAG = 16
_FORMAT = b"\x01"


class Secret:
    """A value that shows itself only to who asks for it: not in `repr`, `str`, a format, a pickle or JSON."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return "Secret(…)"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __reduce__(self) -> str:
        raise TypeError("a Secret does not leave its process")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._value.encode(), other._value.encode())

    __hash__ = None  # type: ignore[assignment]


class Vault:
    """Seals and opens byte strings. `context` names what a value is for: opened as another one, it is refused."""

    def __init__(self, key: bytes) -> None:
        self._key = AESGCM(key)
        self._digest_key = hashlib.sha256(b"digest" + key).digest()

    @classmethod
    def open(cls, path: Path) -> Vault:
        """Read the key file, or make it when there is none. Raises `RuntimeError` for one that is damaged."""
        private_folder(path.parent)
        try:
            key = path.read_bytes()
        except FileNotFoundError:
            boundary("server.vault_key.before")
            key = os.urandom(_KEY)
            write_private(path, key)
            boundary("server.vault_key.made")
        if len(key) != _KEY:
            raise RuntimeError(f"{path} is damaged: {len(key)} bytes instead of {_KEY}")
        return cls(key)

    def seal(self, value: bytes, context: str) -> bytes:
        data_key, outer, inner = os.urandom(_KEY), os.urandom(_NONCE), os.urandom(_NONCE)
        sealed_key = self._key.encrypt(outer, data_key, context.encode())
        return _FORMAT + outer + sealed_key + inner + AESGCM(data_key).encrypt(inner, value, context.encode())

    def unseal(self, sealed: bytes, context: str) -> bytes:
        """Raises `RuntimeError` when the value was sealed with another key or for another context, or was changed."""
        outer_end = 1 + _NONCE
        key_end = outer_end + _KEY + _TAG
        inner_end = key_end + _NONCE
        try:
            data_key = self._key.decrypt(sealed[1:outer_end], sealed[outer_end:key_end], context.encode())
            return AESGCM(data_key).decrypt(sealed[key_end:inner_end], sealed[inner_end:], context.encode())
        except InvalidTag as error:
            raise RuntimeError(
                f"the sealed value of {context} cannot be opened with this state folder's key"
            ) from error

    def digest(self, value: bytes) -> str:
        """A keyed digest: tells bodies apart without betraying a weak secret to who reads the database."""
        return hmac.new(self._digest_key, value, "sha256").hexdigest()


def private_folder(path: Path) -> Path:
    """The folder, 0700, made when missing; one that stood open to others is closed.

    Raises `OSError` when it belongs to somebody else.
    """
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    if path.stat().st_mode & 0o077:
        path.chmod(0o700)
    return path


def write_private(path: Path, content: bytes) -> None:
    """Write 0600, whole or not at all: to a temporary name, synced, renamed."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
