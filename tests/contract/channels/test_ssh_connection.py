"""Connections to a real sshd: every way to log in, every way to be refused, commands, files and streams."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from skyinfra.channels.ssh_connection import SshConnection, SshFailed, SshTarget, connect
from skyinfra.testing.hosts import Host, HostLab
from skyinfra.testing.world import wait_until

LONG_S = 60.0


def target_of(lab: HostLab, host: Host, **changed: object) -> SshTarget:
    given = {"user": host.user, "identity_file": str(lab.key), "known_hosts": lab.key.parent / "known", **changed}
    return SshTarget(host.address, use_config=False, **given)  # type: ignore[arg-type]


def reach(target: SshTarget, seconds: float = LONG_S, **options: object) -> SshConnection:
    return connect(target, time.monotonic() + seconds, **options)  # type: ignore[arg-type]


def refusal(target: SshTarget, seconds: float = LONG_S, **options: object) -> SshFailed:
    with pytest.raises(SshFailed) as caught:
        reach(target, seconds, **options).close()
    return caught.value


def test_commands_files_and_streams(lab: HostLab) -> None:
    host = lab.host("gpu1", user="ubuntu")
    with reach(target_of(lab, host)) as ssh:
        done = ssh.run(["sh", "-c", 'echo "$1"; echo err >&2; cat; exit 3', "sh", "a b'c"], b"in")
        assert (done.code, done.stdout, done.stderr) == (3, b"a b'c\nin", b"err\n")
        assert ssh.run("kill -9 $$").code == -1
        both = ssh.run("head -c 3000000 /dev/zero; head -c 3000000 /dev/zero >&2; cat | wc -c", bytes(3_000_000))
        assert both.stdout.endswith(b"\0003000000\n")
        assert len(both.stderr) == 3_000_000

        seen: list[int] = []
        ssh.put(bytes(700_000), "agent.pyz", 0o700, progress=seen.append)
        assert seen == sorted(seen)
        assert seen[-1] == 700_000
        put = host.path("/home/ubuntu/agent.pyz")
        assert (put.stat().st_size, put.stat().st_mode & 0o777) == (700_000, 0o700)
        with pytest.raises(SshFailed, match=r"no/such/file cannot be written: .*[Nn]o such file|nonexistent"):
            ssh.put(b"x", "no/such/file")
        with pytest.raises(SshFailed, match=r"'sleep 60' did not end within 0\.2 s"):
            ssh.run("sleep 60", timeout_s=0.2)

        program = (
            "import socket as s; l = s.socket(s.AF_UNIX); l.bind('sock'); l.listen(); c = l.accept()[0]; c.send(b'hi')"
        )
        host.console(f'nohup python3 -c "{program}" >/dev/null 2>&1 &', user="ubuntu")
        wait_until(lambda: "sock" in host.console("grep -o sock /proc/net/unix || true"), LONG_S, "the socket listens")
        stream = ssh.open_unix("/home/ubuntu/sock")
        assert stream.recv(2) == b"hi"
        assert ssh.open_tcp("127.0.0.1", 22).recv(4) == b"SSH-"
        with pytest.raises(SshFailed, match=f"{host.address} gives no way to /home/ubuntu/none: "):
            ssh.open_unix("/home/ubuntu/none")
        with pytest.raises(SshFailed, match=r"no way to 127\.0\.0\.1:9: "):
            ssh.open_tcp("127.0.0.1", 9)
    with pytest.raises(SshFailed, match="the connection broke"):
        ssh.run("true")


def test_password_passphrase_and_agent(lab: HostLab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "open", "-f", locked], check=True)
    keys = (locked.with_suffix(".pub").read_text(),)
    host = lab.host("gpu1", user="ubuntu", password="sesame", key=False, public_keys=keys)
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    assert reach(target_of(lab, host, identity_file=None, password="sesame")).run("id -un").stdout == b"ubuntu\n"
    assert reach(target_of(lab, host, identity_file=str(locked), passphrase="open")).run("true").code == 0
    needs = refusal(target_of(lab, host, identity_file=str(locked)))
    assert f"key {locked} not, which needs a passphrase" in needs.reason
    assert (
        "whose passphrase is another" in refusal(target_of(lab, host, identity_file=str(locked), passphrase="x")).reason
    )
    both = refusal(target_of(lab, host, password="wrong")).reason
    assert both == f"authentication failed for ubuntu (tried key {lab.key}, the password)"
    assert "which does not exist" in refusal(target_of(lab, host, identity_file="/no/key")).reason

    agent = subprocess.Popen(["ssh-agent", "-D", "-a", tmp_path / "agent"], stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: (tmp_path / "agent").exists(), LONG_S, "the SSH agent listens")
        monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "agent"))
        subprocess.run(["ssh-keygen", "-q", "-p", "-P", "open", "-N", "", "-f", locked], check=True)
        subprocess.run(["ssh-add", "-q", locked], check=True, stderr=subprocess.DEVNULL)
        locked.unlink()
        assert reach(target_of(lab, host, identity_file=None)).run("true").code == 0
    finally:
        agent.terminate()
        agent.wait()


def test_each_try_has_its_reason(lab: HostLab) -> None:
    host = lab.host("gpu1", user="ubuntu", sshd_after_s=3600)
    told: list[str] = []

    def tell(reason: str) -> None:
        told.append(reason)
        if "refused" in reason:
            host.start_sshd()

    reach(target_of(lab, host), tell=tell).close()
    assert told == [f"connection refused by {host.address}:22"]
    host.power_cut()
    gone = refusal(target_of(lab, host), 1)
    assert not gone.fatal
    assert any(word in gone.reason for word in ("timed out", "no route to host"))
    assert refusal(SshTarget("no-such-name.invalid", use_config=False), 0).reason.startswith("no address is known for")
    cancelled = refusal(SshTarget("no-such-name.invalid", use_config=False), cancelled=lambda: True)
    assert cancelled.reason.startswith("cancelled; last: ")


def test_a_new_machine_that_learns_our_key_late(lab: HostLab) -> None:
    host = lab.host("gpu1", user="ubuntu", key=False)
    keys = host.path("/home/ubuntu/.ssh/authorized_keys")
    assert refusal(target_of(lab, host)).reason == f"authentication failed for ubuntu (tried key {lab.key})"
    learn = lambda _: keys.write_text(lab.public_key + "\n")  # noqa: E731
    reach(target_of(lab, host), tell=learn, retry_login=True).close()


def test_a_changed_host_key_stops(lab: HostLab) -> None:
    host = lab.host("gpu1")
    target = target_of(lab, host)
    for _ in range(2):
        reach(target).close()
    host.change_host_key()
    changed = refusal(target)
    assert changed.fatal
    assert f"remove the line of {host.address} from {target.known_hosts}" in changed.reason


def test_through_jump_hosts_and_the_users_ssh_config(
    lab: HostLab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    jump = lab.host("jump", user="hop", jump_only=True)
    inner = lab.host("inner", user="ubuntu", behind=jump)
    first = target_of(lab, jump)
    ways: dict[str, Callable[[], SshTarget]] = {
        "one jump": lambda: target_of(lab, inner, proxy_jump=(first,)),
        "two jumps": lambda: target_of(lab, inner, proxy_jump=(first, target_of(lab, jump))),
        "ProxyJump": lambda: SshTarget("by-jump", known_hosts=first.known_hosts),
        "ProxyCommand": lambda: SshTarget("by-command", known_hosts=first.known_hosts),
    }
    ssh = f"ssh -F none -i {lab.key} -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh/config").write_text(f"""
Host by-*
  HostName {inner.address}
  User ubuntu
Host by-jump
  ProxyJump hop@{jump.address}
Host by-command
  ProxyCommand {ssh} -W %h:%p hop@{jump.address}
Host *
  IdentityFile {lab.key}
""")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, target in ways.items():
        with reach(target()) as ssh_connection:
            assert ssh_connection.run("hostname").stdout == b"inner\n", name
    inner.stop_sshd()
    assert "is not reached from the jump host" in refusal(ways["one jump"](), 0).reason
    jump.stop_sshd()
    assert (
        refusal(ways["ProxyJump"](), 0).reason == f"jump host {jump.address}: connection refused by {jump.address}:22"
    )


def test_a_dead_network_shows_within_fifteen_seconds(lab: HostLab) -> None:
    host = lab.host("gpu1")
    with reach(target_of(lab, host)) as ssh:
        wait_until(lambda: ssh.transport.silent_s() > 2, LONG_S, "nobody has anything to say")
        assert ssh.alive
        lab.cut(host)
        cut_at = time.monotonic()
        wait_until(lambda: not ssh.alive, LONG_S, "the silence is noticed")
        assert ssh.transport.silent_s() >= 12
        assert time.monotonic() - cut_at < 15 + 15  # generous: a loaded machine runs late
