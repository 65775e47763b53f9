"""What `~/.ssh/config` adds to a target, and the store of pinned keys."""

from __future__ import annotations

from pathlib import Path

import paramiko
import pytest

from skyinfra.channels.host_keys import check_host_key, forget_host, pinned_types
from skyinfra.channels.ssh_target import SshFailed, SshTarget, resolve_target

CONFIG = """\
Host gpu1
    HostName 10.0.0.7
    User ubuntu
    Port 2222
    IdentityFile ~/.ssh/lab
    ProxyJump hop@jump:2200,inner-jump

Host inner-jump
    HostName 10.0.0.2
    User second

Host by-command
    ProxyCommand nc -X connect %h %p

Host direct
    ProxyJump none

Host round
    ProxyJump round
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh/config").write_text(CONFIG)
    return tmp_path


def test_the_file_fills_in_what_the_target_leaves_open(home: Path) -> None:
    found = resolve_target(SshTarget("gpu1"), home=home)
    assert (found.host, found.port, found.user) == ("10.0.0.7", 2222, "ubuntu")
    assert found.identity_files[0].endswith("/.ssh/lab")
    assert [(hop.host, hop.port, hop.user) for hop in found.hops] == [("jump", 2200, "hop"), ("10.0.0.2", 22, "second")]
    given = resolve_target(SshTarget("gpu1", 22, "me", "/k", proxy_jump=(SshTarget("other"),)), home=home)
    assert (given.port, given.user, given.identity_files) == (22, "me", ("/k",))
    assert [hop.host for hop in given.hops] == ["other"]


def test_pins_tell_machines_apart(home: Path) -> None:
    assert resolve_target(SshTarget("a"), home=home).pin == "a"
    assert resolve_target(SshTarget("a", 2022), home=home).pin == "[a]:2022"
    assert resolve_target(SshTarget("gpu1"), home=home).pin == "[10.0.0.7]:2222/10.0.0.2"
    assert resolve_target(SshTarget("a", host_key_name="i-0abc"), home=home).pin == "i-0abc"


def test_a_command_none_and_a_circle(home: Path) -> None:
    assert resolve_target(SshTarget("by-command"), home=home).proxy_command == "nc -X connect by-command 22"
    assert resolve_target(SshTarget("direct"), home=home).hops == ()
    with pytest.raises(SshFailed, match="goes in a circle") as caught:
        resolve_target(SshTarget("round"), home=home)
    assert caught.value.fatal
    assert resolve_target(SshTarget("gpu1", use_config=False), home=home).host == "gpu1"


def test_a_target_travels_and_hides_what_is_secret(tmp_path: Path) -> None:
    hop = SshTarget("hop", password="hidden-1")
    target = SshTarget("a", 1, "u", "/k", "hidden-2", "hidden-3", (hop,), known_hosts=tmp_path / "k", use_config=False)
    assert SshTarget.from_json(target.to_json()) == target
    assert "hidden" not in repr(target)
    assert "hidden" not in repr(resolve_target(target, home=tmp_path))


def test_a_key_is_pinned_at_first_and_another_refused(tmp_path: Path) -> None:
    store = tmp_path / "ours" / "known_hosts"
    one, other = paramiko.ECDSAKey.generate(), paramiko.ECDSAKey.generate()
    for _ in range(2):
        check_host_key(store, "a", "gpu1", one)
    assert store.stat().st_mode & 0o777 == 0o600
    assert pinned_types(store, "a") == ["ecdsa-sha2-nistp256"]
    assert pinned_types(store, "b") == []
    with pytest.raises(SshFailed, match=r"host key of gpu1 has changed .* remove the line of a from ") as caught:
        check_host_key(store, "a", "gpu1", other)
    assert caught.value.fatal
    check_host_key(store, "b", "gpu2", other)
    assert forget_host(store, "a")
    assert not forget_host(store, "a")
    check_host_key(store, "a", "gpu1", other)
    assert len(store.read_text().splitlines()) == 2
