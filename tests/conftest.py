"""Shared by all tests: a whole skyinfra in a temporary folder, and the engine found once."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from skyinfra.testing.postgres import Postgres
from skyinfra.testing.world import World


def pytest_configure(config: pytest.Config) -> None:
    """Find the engine before tests change HOME; never touch the user's own state folder; pass Ctrl-C on to children.

    A shell starts background commands with SIGINT ignored, and that is inherited through every exec.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    from skyinfra.stacks import engine

    if (found := engine.find_engine(os.environ)) is not None:
        os.environ["SKYINFRA_PULUMI"] = str(found)
    os.environ.setdefault("SKYINFRA_HOME", "/nonexistent/skyinfra-tests-must-choose-their-own-home")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """PostgreSQL of this machine's binaries, one per test process."""
    server = Postgres.start()
    if server is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    try:
        yield server
    finally:
        server.close()


@pytest.fixture
def world() -> Iterator[World]:
    """A state folder with a short path (unix sockets), and no process left in the end."""
    root = Path(tempfile.mkdtemp(prefix="skyw-"))
    world = World(root)
    try:
        yield world
    finally:
        world.close()
        shutil.rmtree(root, ignore_errors=True)
