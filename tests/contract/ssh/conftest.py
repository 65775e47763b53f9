"""A "machine" that is this host with another HOME: what runs on a machine is tried here without a network."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from skyinfra.stacks import processes


@dataclass(frozen=True)
class Done:
    code: int
    stdout: bytes
    stderr: bytes


@dataclass(frozen=True)
class HostShell:
    """Implements `remote.program.Shell`."""

    home: Path
    path: str = os.environ.get("PATH", os.defpath)

    def run(self, argv: Sequence[str], stdin: bytes = b"", timeout_s: float = 60.0) -> Done:
        env = {"HOME": str(self.home), "PATH": self.path, "SSH_CONNECTION": "127.0.0.1 1 127.0.0.1 22"}
        done = subprocess.run(argv, input=stdin, capture_output=True, env=env, timeout=timeout_s, check=False)
        return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[HostShell]:
    """Every process that was started "on the machine" is ended afterwards."""
    home = tmp_path / "login"
    home.mkdir()
    yield HostShell(home)
    processes.end(lambda: _below(home))


def _below(home: Path) -> list[processes.Identity]:
    found = []
    for path in home.glob(".skyinfra-node/*/agent"):
        found += processes.marked(f"SKYINFRA_AGENT_STATE={path}")
    return found


@pytest.fixture
def leases(tmp_path: Path) -> str:
    return str(tmp_path / "leases")
