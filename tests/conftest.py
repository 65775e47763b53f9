"""Shared by all tests: a whole skyinfra in a temporary folder, and the engine found once."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from skyinfra.testing.hosts import HostLab, HostsUnavailable
from skyinfra.testing.postgres import Postgres
from skyinfra.testing.world import World

MISSED_GROUP = 100
"""The run's exit code then: none of pytest's own."""

REQUIRED = Path(__file__).with_name("required-groups.txt")


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


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require-groups", action="store_true", help="fail when a test of tests/required-groups.txt was skipped"
    )


def required_groups() -> list[str]:
    lines = REQUIRED.read_text().splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def missed_groups(groups: list[str], ran: list[str], skipped: list[str]) -> list[str]:
    """What to say about each group of which a test was skipped, or none ran."""
    said = []
    for group in groups:
        left_out = [test for test in skipped if test.startswith(group)]
        if left_out:
            said.append(f"{group}: {len(left_out)} skipped, for example {left_out[0]}")
        elif not any(test.startswith(group) for test in ran):
            said.append(f"{group}: no test of it ran")
    return said


def pytest_sessionfinish(session: pytest.Session) -> None:
    """On the process that gathers the reports."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if not session.config.getoption("--require-groups") or reporter is None or hasattr(session.config, "workerinput"):
        return
    ran = [report.nodeid for report in (*reporter.getreports("passed"), *reporter.getreports("failed"))]
    skipped = [report.nodeid for report in reporter.getreports("skipped")]
    for line in missed_groups(required_groups(), ran, skipped):
        reporter.write_line(f"required group missed: {line}", red=True)
        session.exitstatus = MISSED_GROUP


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
def database(request: pytest.FixtureRequest) -> str:
    """Where the server of `world` keeps its rows: ``sqlite`` or ``postgres``. A test says it as a parameter."""
    return getattr(request, "param", "sqlite")


@pytest.fixture
def world(request: pytest.FixtureRequest, database: str) -> Iterator[World]:
    """A state folder with a short path (unix sockets), and no process left in the end."""
    root = Path(tempfile.mkdtemp(prefix="skyw-"))
    on_postgres = database == "postgres"
    world = World(root, env={"SKYINFRA_DB_URL": request.getfixturevalue("postgres").database()} if on_postgres else {})
    try:
        yield world
    finally:
        world.close()
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def lab() -> Iterator[HostLab]:
    """A network of test hosts, empty at first; skips where there can be none."""
    try:
        lab = HostLab()
    except HostsUnavailable as exc:
        pytest.skip(str(exc))
    with lab:
        yield lab
