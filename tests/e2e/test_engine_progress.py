"""The first launch on a machine without an engine says what it waits for while the engine is built."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from skyinfra.stacks.engine import find_engine
from skyinfra.testing.world import World

pytestmark = [pytest.mark.engine, pytest.mark.timeout(180)]

NOWHERE = "http://127.0.0.1:9"  # nobody listens on the discard port


@pytest.fixture
def bare() -> Iterator[World]:
    """A world without an engine, whose `go` takes a moment and then hands out the one that is here."""
    with tempfile.TemporaryDirectory(prefix="skyw-") as name:
        root = Path(name)
        tools = root / "tools"
        tools.mkdir()
        go = tools / "go"
        go.write_text(
            '#!/bin/sh\nwhile [ "$1" != -o ]; do shift; done\n'
            f'sleep 1\ncp "{find_engine()}" "$2"\n'  # as long as a build, in ticks of the progress below
        )
        go.chmod(0o755)
        path = os.pathsep.join([str(tools), "/usr/bin", "/bin"])
        env = {"PATH": path, "XDG_CACHE_HOME": str(root / "cache"), "HTTPS_PROXY": NOWHERE, "HTTP_PROXY": NOWHERE}
        world = World(root, env={**env, "SKYINFRA_PULUMI": "", "SKYINFRA_ENGINE_PROGRESS_S": "0.3"})
        try:
            yield world
        finally:
            world.close()


def test_a_first_launch_shows_how_the_engine_comes_about(bare: World) -> None:
    said = bare.run("launch", "-y", "-c", "c", str(bare.task("t", "echo hi")), timeout_s=150)
    assert "hi" in said.stdout
    assert "installing the Pulumi engine" in said.stderr
    assert "building the Pulumi engine" in said.stderr
    assert "still building the Pulumi engine" in said.stderr
    assert (
        "building the Pulumi engine" not in bare.run("launch", "-y", "-c", "c", str(bare.task("t", "echo hi"))).stderr
    )
    bare.run("down", "-y", "c")
