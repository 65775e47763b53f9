"""The key pair with which this server logs in to the machines of its clusters. The private half never leaves the host.

Servers that share a database share their ``keys`` folder, and with it this key.
"""

from __future__ import annotations

import os
from pathlib import Path

from skyinfra.model.home import Home
from skyinfra.stacks.files import make_private_dir, write_atomic

__all__ = ["private_key_file", "public_key"]


def private_key_file(home: Home) -> Path:
    return home.secrets_key.with_name("login_ed25519")


def public_key(home: Home) -> str:
    """In OpenSSH's form; the pair is made at the first call. Two processes at once agree on one."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        PublicFormat,
        load_ssh_private_key,
    )

    path = private_key_file(home)
    if not path.exists():
        make_private_dir(path.parent)
        pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
        mine = path.with_name(f".{path.name}.{os.getpid()}")
        write_atomic(mine, pem)
        try:
            os.link(mine, path)  # fails when another was first: theirs counts
        except FileExistsError:
            pass
        mine.unlink()
    half = load_ssh_private_key(path.read_bytes(), password=None).public_key()
    return f"{half.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()} skyinfra"
