"""docs/how-to/ssh-pool.md, followed word for word on a test host."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from skyinfra.model.ssh_pools import pools_of_text
from skyinfra.testing.hosts import HostLab
from skyinfra.testing.world import World

pytestmark = [pytest.mark.engine, pytest.mark.timeout(240)]

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "ssh-pool.md"


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)


def test_the_file_of_the_page_is_a_pool() -> None:
    [text] = blocks("yaml")
    first, second, third = pools_of_text(text, "the page")["rack1"].hosts
    assert (first.user, second.user, third.proxy_jump) == ("ubuntu", "admin", ("me@bastion.lab",))


def test_the_page_followed_word_for_word(world: World, lab: HostLab, tmp_path: Path) -> None:
    host = lab.host("gpu1", user="ubuntu")
    host.wait_for_sshd()
    before = host.files()
    text = f"rack1:\n  user: ubuntu\n  identity_file: {lab.key}\n  hosts:\n    - {host.address}\n"
    (world.home.root / "ssh_node_pools.yaml").write_text(text)
    said = [_run(world, line) for block in blocks("console") for line in block.splitlines()]
    assert f"hello from {host.name}" in "\n".join(said)
    assert host.name in said
    assert host.files() == before


def _run(world: World, line: str) -> str:
    program, *words = shlex.split(line.removeprefix("$ "))
    if program == "skyinfra":
        return world.run(*words).stdout.strip()
    assert program == "ssh"
    config = Path(world.env["HOME"]) / ".ssh" / "config"  # OpenSSH takes the passwd entry's home, not $HOME
    argv = ["ssh", "-F", str(config), "-o", "BatchMode=yes", *words]
    return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=30, env=world.env).stdout.strip()
