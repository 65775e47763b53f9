"""Whether this machine can hold test hosts."""

from __future__ import annotations

import os
import shutil
import sys

__all__ = ["HostsUnavailable", "why_unavailable"]

#: Program and the Debian package that has it.
NEEDED = {
    "ip": "iproute2",
    "sshd": "openssh-server",
    "ssh-keygen": "openssh-client",
    "cron": "cron",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "openssl": "openssl",
}


class HostsUnavailable(Exception):
    """No test hosts on this machine; the message says why and what would help."""


def why_unavailable() -> str | None:
    """Why there can be no test hosts here, in one line; None when they are possible as far as can be seen."""
    if not sys.platform.startswith("linux"):
        return "test hosts are Linux namespaces"
    if os.geteuid() != 0:
        return "test hosts need root"
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    missing = sorted({package for program, package in NEEDED.items() if shutil.which(program, path=path) is None})
    if missing:
        return f"test hosts need Debian's {', '.join(missing)} (apt-get install {' '.join(missing)})"
    return None
