"""``ssh_node_pools.yaml``: pools of machines that are simply there, in SkyPilot's format. Values, checked; no network.

.. code-block:: yaml

   rack1:                             # a pool; `infra: ssh/rack1`
     user: ubuntu                     # what holds for every host that says nothing else
     identity_file: ~/.ssh/rack
     hosts:
       - gpu1                         # a name or address, or a Host of ~/.ssh/config
       - admin@gpu2
       - {ip: 10.0.0.7, port: 2222, user: root, password: …, proxy_jump: bastion.lab}

A host is known by the word it is reached by, with its port where that is not 22. What it does not say,
``~/.ssh/config`` may. Passwords never print.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from skyinfra.model.problems import Path, Problem, closest, raise_problems
from skyinfra.model.secret import SecretStr

__all__ = ["FILE_NAME", "Pool", "PoolHost", "Pools", "pool_documents", "pools_of_text", "read_pools"]

FILE_NAME = "ssh_node_pools.yaml"
WHAT = "ssh node pools"

_POOL_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
#: No blank, no leading dash: a word that a command could take for an option is no host.
_HOST = re.compile(r"[A-Za-z0-9_\[:][A-Za-z0-9._:\[\]%-]*")
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9._-]*\$?")
_SHARED = ("user", "identity_file", "password", "port", "proxy_jump")
_ALIASES = {"proxy": "proxy_jump"}
_POOL_KEYS = ("hosts", *_SHARED)
_HOST_KEYS = ("ip", *_SHARED)


@dataclass(frozen=True)
class PoolHost:
    """One machine of a pool. None = what ``~/.ssh/config`` says, else SSH's own default."""

    name: str
    """What it is called in messages, states and leases; unique in its pool."""
    address: str
    """A name, an address or a Host of ``~/.ssh/config``."""
    user: str | None = None
    port: int | None = None
    identity_file: str | None = None
    password: SecretStr | None = None
    proxy_jump: tuple[str, ...] = ()
    """``[user@]host[:port]``, nearest first."""


@dataclass(frozen=True)
class Pool:
    name: str
    hosts: tuple[PoolHost, ...]

    def host(self, name: str) -> PoolHost | None:
        return next((host for host in self.hosts if host.name == name), None)


Pools = dict[str, Pool]


def read_pools(path: str | os.PathLike[str]) -> Pools:
    """The pools of a file; none where there is no file.

    Raises `InvalidSkyPilotConfigError` with ``FILE:LINE:COL`` for each problem, `OSError` when it cannot be read.
    """
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            text = file.read()
    except FileNotFoundError:
        return {}
    return pools_of_text(text, os.fspath(path))


def pools_of_text(text: str, name: str) -> Pools:
    """The pools that a text declares; `name` is what its problems are reported under. Raises as `read_pools`."""
    return {pool: _pool(pool, value) for pool, value in pool_documents(text, name).items()}


def pool_documents(text: str, name: str) -> dict[str, dict[str, Any]]:
    """The same, as plain values: what a file is merged and written from. Raises as `read_pools`."""
    from skyinfra.model.yaml_file import read_yaml_str

    source = read_yaml_str(text, name, refuse_duplicates=True)
    documents = [(number, one) for number, one in enumerate(source.documents) if one is not None]
    if len(documents) > 1:
        with source.locating(documents[1][0]):
            raise_problems([Problem((), f"a second document; {FILE_NAME} is one")], WHAT)
    number, value = documents[0] if documents else (0, {})
    with source.locating(number):
        raise_problems(_problems(value), WHAT)
    return value


# checking -------------------------------------------------------------------------------------------------------------


def _problems(value: Any) -> Iterator[Problem]:
    if not isinstance(value, dict):
        yield Problem((), f"must map pools to their hosts, not be {_kind(value)}")
        return
    for name, pool in value.items():
        if not isinstance(name, str) or not _POOL_NAME.fullmatch(name):
            allowed = "letters, digits, '.', '_' and '-', at most 63 of them"
            yield Problem((name,), f"{name!r} cannot be the name of a pool: {allowed}", at_key=True)
        yield from _pool_problems(name, pool)


def _pool_problems(name: Any, pool: Any) -> Iterator[Problem]:
    if not isinstance(pool, dict):
        yield Problem((name,), f"must be a map with `hosts`, not {_kind(pool)}")
        return
    yield from _key_problems((name,), pool, _POOL_KEYS)
    hosts = pool.get("hosts")
    if not isinstance(hosts, list) or not hosts:
        wrong = "is missing" if "hosts" not in pool else "is empty" if hosts in ([], None) else "must be a list"
        yield Problem((name, "hosts") if "hosts" in pool else (name,), f"`hosts` {wrong}")
        return
    seen: dict[str, int] = {}
    for number, host in enumerate(hosts):
        path = (name, "hosts", number)
        found = list(_host_problems(path, host))
        yield from found
        if not found:
            label = _host(host, pool).name
            if label in seen:
                yield Problem(path, f"{label} is host {seen[label] + 1} of this pool already")
            seen.setdefault(label, number)


def _host_problems(path: Path, host: Any) -> Iterator[Problem]:
    if isinstance(host, dict):
        yield from _key_problems(path, host, _HOST_KEYS)
        if "ip" not in host:
            yield Problem(path, "`ip` is missing: the host's name or address")
        else:
            yield from _word_problems((*path, "ip"), host["ip"])
    else:
        yield from _word_problems(path, host)


def _word_problems(path: Path, word: Any) -> Iterator[Problem]:
    """`word` is ``[user@]host``."""
    if not isinstance(word, str):
        yield Problem(path, f"must be a name, an address or a map with `ip`, not {_kind(word)}")
        return
    user, at, address = word.rpartition("@")
    if at and not _USER.fullmatch(user):
        yield Problem(path, f"{user!r} is no user name")
    if not _HOST.fullmatch(address):
        yield Problem(path, f"{address!r} is no name or address of a host")


def _key_problems(path: Path, value: Mapping[Any, Any], known: tuple[str, ...]) -> Iterator[Problem]:
    for key in value:
        if _ALIASES.get(key, key) not in known:
            meant = closest(key, (*known, *_ALIASES))
            also = f"; did you mean {meant!r}?" if meant else f"; known: {', '.join(known)}"
            yield Problem((*path, key), f"unknown key {key!r}{also}", at_key=True)
    for key in ("user", "identity_file", "password"):
        if value.get(key) is not None and (not isinstance(value[key], str) or not value[key]):
            hint = "; put it in quotes" if isinstance(value[key], int | float) else ""
            yield Problem((*path, key), f"must be a text, not {_kind(value[key])}{hint}")
    if isinstance(value.get("user"), str) and not _USER.fullmatch(value["user"]):
        yield Problem((*path, "user"), f"{value['user']!r} is no user name")
    port = value.get("port")
    if port is not None and (isinstance(port, bool) or not isinstance(port, int) or not 0 < port < 65536):
        yield Problem((*path, "port"), f"must be a number from 1 to 65535, not {port!r}")
    for key in ("proxy", "proxy_jump"):
        if value.get(key) is not None:
            yield from _jump_problems((*path, key), value[key])
    if "proxy" in value and "proxy_jump" in value:
        yield Problem((*path, "proxy"), "`proxy` and `proxy_jump` are one thing: give one", at_key=True)


def _jump_problems(path: Path, value: Any) -> Iterator[Problem]:
    if not isinstance(value, str):
        yield Problem(path, f"must be `[user@]host[:port]`, or several with commas, not {_kind(value)}")
        return
    for hop in value.split(","):
        user, at, rest = hop.strip().rpartition("@")
        host, colon, port = rest.partition(":")
        good = _HOST.fullmatch(host) and (not at or _USER.fullmatch(user)) and (not colon or port.isdigit())
        if not good:
            yield Problem(path, f"{hop.strip()!r} is not `[user@]host[:port]`")


def _kind(value: Any) -> str:
    if value is None:
        return "empty"
    names = {dict: "a map", list: "a list", str: "a text", bool: "true or false", int: "a number", float: "a number"}
    return names.get(type(value), type(value).__name__)


# building -------------------------------------------------------------------------------------------------------------


def _pool(name: str, value: Mapping[str, Any]) -> Pool:
    return Pool(name, tuple(_host(host, value) for host in value["hosts"]))


def _host(host: Any, pool: Mapping[str, Any]) -> PoolHost:
    given: Mapping[str, Any] = host if isinstance(host, dict) else {"ip": host}
    user, _, address = str(given["ip"]).rpartition("@")

    def told(key: str) -> Any:
        return given.get(key) if given.get(key) is not None else pool.get(key)

    port, password = told("port"), told("password")
    jump = told("proxy_jump") or told("proxy") or ""
    own_port = given.get("port")
    return PoolHost(
        name=f"{address}:{own_port}" if own_port not in (None, 22) else address,
        address=address,
        user=given.get("user") or user or pool.get("user"),
        port=port,
        identity_file=told("identity_file"),
        password=SecretStr(password) if password else None,
        proxy_jump=tuple(hop.strip() for hop in jump.split(",") if hop.strip()),
    )
