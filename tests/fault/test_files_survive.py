"""Kill -9 while files travel: the next try goes on, and the tree arrives bit for bit."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from skyinfra.testing.world import World, wait_until

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]


def tree(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("boundary", "who"),
    [
        ("client.pack.before", "client"),
        pytest.param("client.upload.made", "client", marks=pytest.mark.slow),
        pytest.param("client.pack.made", "client", marks=pytest.mark.slow),
        ("chunks.pack.made", "server"),
        pytest.param("chunks.pack.before", "server", marks=pytest.mark.slow),
        pytest.param("server.blob.made", "server", marks=pytest.mark.slow),
        ("agent.apply.before", "agent"),
        pytest.param("agent.apply.made", "agent", marks=pytest.mark.slow),
        pytest.param("agent.files.before", "agent", marks=pytest.mark.slow),
    ],
)
def test_a_kill_while_files_travel_costs_a_try_at_most(world: World, boundary: str, who: str) -> None:
    source = world.root / "source"
    (source / "sub").mkdir(parents=True)
    (source / "big").write_bytes(os.urandom(9_000_000))
    (source / "sub" / "small").write_text("small")
    task = world.task("t", "true", workdir=str(source))
    world.run("api", "start")
    hold = world.faults.arm(boundary)
    client = world.popen("launch", "-y", "-c", "c", str(task))
    pid = hold.wait_reached(60)
    os.kill(pid, signal.SIGKILL)
    hold.release()
    _, said = client.communicate(timeout=120)
    if who == "client":
        assert client.returncode == -signal.SIGKILL
        world.run("launch", "-y", "-c", "c", str(task), timeout_s=120)
    else:
        assert client.returncode == 0, said
    (node,) = world.home.nodes.iterdir()
    assert tree(node / "home" / "sky_workdir") == tree(source)
    world.run("down", "-y", "c")
    wait_until(lambda: not list(world.home.nodes.iterdir()), 20, "no machine is left")
