"""A full disk under the state folder: what reads works, what writes is refused in a line, and it heals by itself."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from skyinfra.testing.world import World, wait_until

SIZE_MB = 64


@pytest.fixture
def small(request: pytest.FixtureRequest) -> Iterator[World]:
    """A world on a file system of its own."""
    if os.getuid() != 0:
        pytest.skip("only root can mount a small file system")
    root = Path(tempfile.mkdtemp(prefix="skyd-"))
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MB}m,mode=0700", "tmpfs", str(root)], capture_output=True, text=True
    )
    if mounted.returncode != 0:
        root.rmdir()
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    world = World(root)
    try:
        yield world
    finally:
        world.close()
        subprocess.run(["umount", "--lazy", str(root)], check=True)
        shutil.rmtree(root, ignore_errors=True)


def fill(world: World) -> Path:
    """Take every free byte, the last pages included."""
    path = world.root / "filler"
    with path.open("wb", buffering=0) as file:
        for size in (1 << 20, 4096, 512):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue
    return path


def test_a_full_disk_stops_what_writes_and_nothing_else(small: World) -> None:
    small.run("launch", "-y", "-c", "c", str(small.task("hi", "echo before")))
    pid = small.server_pid()
    filler = fill(small)

    assert [one["name"] for one in small.json("status")] == ["c"]
    assert small.json("queue", "c")[0]["status"] == "SUCCEEDED"
    assert "before" in small.run("logs", "c", "1").stdout
    assert small.json("api", "status", "-a")
    for words in (["exec", "c", "true"], ["launch", "-y", "-c", "d", "true"], ["api", "token", "create", "x"]):
        refused = small.run(*words, check=1)
        assert refused.stderr.startswith("error: the server's disk is full: 0 MiB are free in "), words
        assert "Traceback" not in refused.stderr
    assert "16 MiB are needed" in small.run("down", "-y", "c", check=1).stderr

    filler.unlink()
    small.run("exec", "c", "true")
    small.run("down", "-y", "c")
    assert small.server_pid() == pid


def test_a_request_that_meets_a_full_disk_goes_on_when_there_is_room(small: World) -> None:
    small.run("launch", "-y", "-c", "c", str(small.task("hi", "true")))
    hold = small.faults.arm("request.exec.sync.made")
    client = small.popen("exec", "c", "true")
    hold.wait_reached(30)
    filler = fill(small)
    hold.release()
    waits = small.popen("api", "status")  # while it waits, the server answers
    assert waits.wait(30) == 0
    assert client.poll() is None
    filler.unlink()
    client.communicate(timeout=60)
    assert client.returncode == 0
    wait_until(lambda: not small.json("api", "status"), 30, "no request is left")
