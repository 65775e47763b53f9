"""Proving who we are: keys, the user's SSH agent, a password; and saying afterwards what was tried."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import paramiko
from paramiko.pkey import UnknownKeyType

from skyinfra.channels.ssh_target import ResolvedTarget, SshFailed

__all__ = ["log_in"]


def log_in(transport: paramiko.Transport, target: ResolvedTarget) -> None:
    """In OpenSSH's order: the named key, the agent's, the user's default keys, the password.

    Raises `SshFailed`, fatal: it names every way that was tried. `OSError`, `EOFError` and `paramiko.SSHException` pass
    when the connection breaks on the way.
    """
    tried: list[str] = []
    agent = paramiko.Agent()
    try:
        for label, key in _keys(target, agent, tried):
            tried.append(label)
            if _accepted(transport, target.user, key):
                return
        if target.password is not None:
            tried.append("the password")
            try:
                transport.auth_password(target.user, target.password)
                return
            except paramiko.AuthenticationException:
                pass  # told below, with what else was tried
    except paramiko.SSHException as exc:
        if transport.is_active():
            raise
        raise _refused(target, tried, f": {exc}") from exc
    finally:
        agent.close()
    raise _refused(target, tried, "")


def _refused(target: ResolvedTarget, tried: list[str], why: str) -> SshFailed:
    what = "tried " + ", ".join(tried) if tried else "no key, no agent and no password to try"
    return SshFailed(f"authentication failed for {target.user} ({what}){why}", fatal=True)


def _accepted(transport: paramiko.Transport, user: str, key: paramiko.PKey) -> bool:
    try:
        transport.auth_publickey(user, key)
    except paramiko.AuthenticationException:
        return False
    return True


def _keys(target: ResolvedTarget, agent: paramiko.Agent, tried: list[str]) -> Iterator[tuple[str, paramiko.PKey]]:
    files = [(path, _load_key(path, target)) for path in target.identity_files]
    agent_keys = [(f"agent key {key.comment or key.fingerprint}", key) for key in agent.get_keys()]
    from_files = []
    for path, loaded in files:
        if isinstance(loaded, paramiko.PKey):
            from_files.append((f"key {path}", loaded))
        elif not _held_by_agent(path, agent_keys):
            tried.append(f"key {path} not, {loaded}")
    # A key that was asked for goes first: sshd counts tries, and an agent may hold many.
    yield from (*from_files, *agent_keys) if target.named_identity else (*agent_keys, *from_files)


def _load_key(path: str, target: ResolvedTarget) -> paramiko.PKey | str:
    """The key, or why there is none."""
    try:
        return _read_key(path, None)
    except FileNotFoundError:
        return "which does not exist"
    except (TypeError, paramiko.PasswordRequiredException):  # how the two parsers underneath say "encrypted"
        pass
    except (ValueError, OSError, paramiko.SSHException, UnknownKeyType) as exc:
        return f"which cannot be read: {exc}"
    if target.passphrase is None:
        return "which needs a passphrase"
    try:
        return _read_key(path, target.passphrase.encode())
    except (ValueError, OSError, paramiko.SSHException, UnknownKeyType):
        return "whose passphrase is another"


def _read_key(path: str, passphrase: bytes | None) -> paramiko.PKey:
    # The annotation asks for str, the code below it for bytes.
    return paramiko.PKey.from_path(Path(path), passphrase)  # pyright: ignore[reportArgumentType]


def _held_by_agent(path: str, agent_keys: list[tuple[str, paramiko.AgentKey]]) -> bool:
    """A key with a passphrase is commonly in the agent; then its file is of no concern."""
    try:
        blob = Path(path + ".pub").read_text().split()[1]
    except (OSError, IndexError):
        return False
    return any(key.get_base64() == blob for _, key in agent_keys)
