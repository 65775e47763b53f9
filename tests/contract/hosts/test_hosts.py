"""The test hosts do what machines do: seen from outside over SSH, from inside, and after faults."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from skyinfra.testing.hosts import Host, HostLab, HostsUnavailable
from skyinfra.testing.hosts.disk import FAKETIME
from skyinfra.testing.world import wait_until

LONG_S = 60


def ssh_argv(lab: HostLab, host: Host, *words: str, options: tuple[str, ...] = ()) -> list[str]:
    common = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", "BatchMode=yes")
    options = (*common, "ConnectTimeout=20", *options)
    return ["ssh", "-F", "none", "-i", str(lab.key), *(f"-o{option}" for option in options), *words]


def ssh(lab: HostLab, host: Host, command: str, *, via: Host | None = None) -> subprocess.CompletedProcess[str]:
    options: tuple[str, ...] = ()
    if via is not None:
        proxy = " ".join(ssh_argv(lab, via, "-W", "%h:%p", f"{via.user}@{via.address}"))
        options = (f"ProxyCommand={proxy}",)
    argv = ssh_argv(lab, host, f"{host.user}@{host.address}", command, options=options)
    return subprocess.run(argv, capture_output=True, text=True, timeout=LONG_S, stdin=subprocess.DEVNULL)


def ready(host: Host) -> Host:
    host.wait_for_sshd(LONG_S)
    return host


def greeting(host: Host, timeout_s: float) -> bytes:
    """What sshd says first. Raises `OSError`."""
    with socket.create_connection((host.address, 22), timeout_s) as connection:
        return connection.recv(64)


def test_a_host_is_a_machine_of_its_own(lab: HostLab) -> None:
    one, two = lab.host("one", user="ubuntu", cpus=1, memory_gb=3), lab.host("two", gpus=("L4",) * 2)
    said = ssh(
        lab, ready(one), "hostname; whoami; nproc; grep MemTotal /proc/meminfo; echo x > note; ls /work /tmp /root"
    )
    assert said.stdout.split()[:3] == ["one", "ubuntu", "1"], said
    assert "3145728 kB" in said.stdout
    assert one.path("/home/ubuntu/note").read_text() == "x\n"
    assert "/home/ubuntu/note" in one.files()
    assert "/home/ubuntu/note" not in two.files()
    assert ssh(lab, ready(two), "nvidia-smi --query-gpu=index,name --format=csv,noheader").stdout == (
        "0, NVIDIA L4\n1, NVIDIA L4\n"
    )
    one.console("nohup sleep 4242 >/dev/null 2>&1 &", user="ubuntu")
    wait_until(lambda: [process.argv for process in one.processes()] == [("sleep", "4242")], LONG_S, "nohup is sleep")
    assert two.processes() == []
    assert "sleep 4242" not in two.console("ps ax")
    # From host to host, and nowhere else.
    reach = "python3 -c 'import socket,sys; socket.create_connection((sys.argv[1], 22), 20)' "
    two.console(reach + one.address)
    with socket.create_server(("", 0)) as ours, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("203.0.113.1", 9))  # sends nothing: only to learn an address that this machine has elsewhere
            elsewhere = probe.getsockname()[0]
        except OSError:
            elsewhere = "203.0.113.1"  # a machine without a network has none
        port = str(ours.getsockname()[1])
        reach = reach.replace(" 22)", f" {port})").replace(", 22", f", {port}")
        two.console(reach + lab.gateway)
        assert "No route to host" in two.console(reach + elsewhere + " 2>&1", check=False)


def test_only_the_named_ways_of_logging_in_open(lab: HostLab) -> None:
    locked = ready(lab.host("locked", user="ubuntu", key=False))
    refused = ssh(lab, locked, "true")
    assert refused.returncode == 255
    assert "Permission denied (publickey)" in refused.stderr
    both = ready(lab.host("both", user="ubuntu", password="open sesame"))
    assert ssh(lab, both, "true").returncode == 0
    with_password = ssh_argv(lab, both, f"ubuntu@{both.address}", "id -un", options=("PubkeyAuthentication=no",))
    ask = lab.key.parent / "ask"
    ask.write_text("#!/bin/sh\necho open sesame\n")
    ask.chmod(0o700)
    with_password = [word.replace("BatchMode=yes", "BatchMode=no") for word in with_password]
    env = {**os.environ, "SSH_ASKPASS": str(ask), "SSH_ASKPASS_REQUIRE": "force"}
    assert subprocess.run(with_password, env=env, capture_output=True, text=True, check=True).stdout == "ubuntu\n"


def test_a_reboot_keeps_the_disk_and_runs_what_cron_has_for_it(lab: HostLab) -> None:
    host = ready(lab.host("gpu1", user="ubuntu", user_data="#!/bin/sh\necho once >> /root/first-boot\n"))
    wait_until(lambda: host.path("/var/lib/user-data.exit").exists(), LONG_S, "user data has run")
    ssh(lab, host, "echo '@reboot echo up-again > $HOME/rebooted' | crontab -; echo kept > kept; touch /run/user/x")
    first_boot = host.console("cat /proc/sys/kernel/random/boot_id")
    host.reboot()
    rebooted = host.path("/home/ubuntu/rebooted")
    wait_until(lambda: rebooted.exists() and rebooted.read_text() == "up-again\n", LONG_S, "cron ran its @reboot line")
    assert ssh(lab, ready(host), "cat kept; ls /run/user").stdout == "kept\n"
    assert host.console("cat /proc/sys/kernel/random/boot_id") != first_boot
    assert host.path("/root/first-boot").read_text() == "once\n"


def test_a_shutdown_tells_everyone_and_a_power_cut_nobody(lab: HostLab) -> None:
    host = ready(lab.host("gpu1", user="ubuntu"))
    job = "trap 'echo told > $HOME/told; exit' TERM; touch $HOME/ready; while :; do sleep 0.05; done"
    start = f"rm -f ready; nohup bash -c {job!r} >/dev/null 2>&1 &".replace("$HOME", "/home/ubuntu")
    for end, told in ((host.power_cut, False), (host.shutdown, True)):
        ssh(lab, host, start)
        wait_until(lambda: host.path("/home/ubuntu/ready").exists(), LONG_S, "the job traps SIGTERM")
        pids = [process.pid for process in host.processes()]
        assert pids
        end()
        assert not host.running
        assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
        assert host.path("/home/ubuntu/told").exists() == told
        host.boot()
        ready(host)
    host.console("shutdown -h now", check=False)
    wait_until(lambda: not host.running, LONG_S, "the host turned itself off")


def test_a_cut_cable_is_silent_and_heals(lab: HostLab) -> None:
    host = ready(lab.host("gpu1"))
    with socket.create_connection((host.address, 22), LONG_S) as connection:
        assert connection.recv(4) == b"SSH-"
        lab.cut(host)
        connection.sendall(b"SSH-2.0-test\r\n")  # goes into the void, and nobody says so
        connection.settimeout(0.3)
        rest = connection.recv(1024)  # the rest of the greeting, which had arrived
        assert rest.endswith(b"\n")
        with pytest.raises(TimeoutError):
            connection.recv(1024)
        lab.mend(host)
        connection.settimeout(LONG_S)
        assert len(connection.recv(1024)) > 100  # its key exchange, after TCP sent ours again


def test_delay_and_one_way_loss(lab: HostLab) -> None:
    host = ready(lab.host("gpu1"))
    lab.delay(host, ms=30, loss=0.02, seed=7)
    began = time.monotonic()
    assert greeting(host, LONG_S).startswith(b"SSH-2.0-")
    assert time.monotonic() - began >= 0.09  # to connect, and for its first word
    data = "head -c 200000 /dev/zero | tr '\\0' x"  # through loss, and with offloaded checksums and segments
    assert ssh(lab, host, data).stdout == "x" * 200000
    lab.lose(host, from_host=1)
    heard = "cat /proc/net/snmp | awk '/^Tcp: [0-9]/ {print $11}'"
    before = int(host.console(heard))
    with pytest.raises(OSError, match=r"timed out|No route"):
        greeting(host, 1)
    wait_until(lambda: int(host.console(heard)) > before, LONG_S, "the host heard of it")
    host.reboot()
    with pytest.raises(OSError, match=r"timed out|No route"):
        greeting(ready(host), 1)  # weather does not end with a boot
    lab.mend(host)
    assert greeting(host, LONG_S).startswith(b"SSH-2.0-")


def test_a_slow_line(lab: HostLab) -> None:
    host = ready(lab.host("gpu1"))
    lab.rate(host, mbit=16)
    sink = "while c.recv(65536): pass"
    program = f"import socket\nc = socket.create_server(('', 80)).accept()[0]\n{sink}\nc.sendall(b'all')"
    host.path("/root/sink.py").write_text(program)
    host.console("nohup python3 /root/sink.py >/dev/null 2>&1 &")
    wait_until(lambda: host.listens_on(80), LONG_S, "the sink listens")
    began = time.monotonic()
    with socket.create_connection((host.address, 80), LONG_S) as connection:
        connection.sendall(bytes(2_000_000))
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(3) == b"all"
    assert time.monotonic() - began >= 0.3


def test_a_disk_of_its_size_fills_up_and_outlives_the_boot(lab: HostLab) -> None:
    host = lab.host("small", disk_mb=8)
    with pytest.raises(RuntimeError, match="No space left on device"):
        host.console("head -c 20000000 /dev/zero > /root/big")
    host.reboot(power_cut=True)
    with pytest.raises(RuntimeError, match="No space left on device"):
        host.console("echo more > /root/more; head -c 2000000 /dev/zero > /root/more")
    host.console("rm /root/big; echo fits > /root/more")
    assert host.path("/root/more").read_text() == "fits\n"
    lab.terminate(host)
    with pytest.raises(RuntimeError, match="is off"):
        host.console("true")


@pytest.mark.skipif(not FAKETIME, reason="libfaketime is not installed (Debian: apt-get install libfaketime)")
def test_the_clock_jumps(lab: HostLab) -> None:
    host = ready(lab.host("gpu1", clock=True))
    now = "python3 -c 'import time; print(time.time())'"
    assert abs(float(ssh(lab, host, now).stdout) - time.time()) < LONG_S
    host.set_clock(-7200)
    assert abs(float(ssh(lab, host, now).stdout) - (time.time() - 7200)) < LONG_S


def test_sshd_comes_late_goes_and_changes_its_key(lab: HostLab) -> None:
    host = lab.host("gpu1", sshd_after_s=3600)
    host.console("true")
    with pytest.raises(ConnectionRefusedError):
        greeting(host, LONG_S)
    host.sshd_after_s = 0
    host.reboot(power_cut=True)
    ready(host)
    scan = ["ssh-keyscan", "-t", "ed25519", host.address]
    key = subprocess.run(scan, capture_output=True, check=True).stdout
    host.change_host_key()
    assert subprocess.run(scan, capture_output=True, check=True).stdout != key
    host.stop_sshd()
    with pytest.raises(ConnectionRefusedError):
        greeting(host, LONG_S)
    host.start_sshd()
    assert ssh(lab, host, "true").returncode == 0


def test_behind_a_jump_host(lab: HostLab) -> None:
    jump = ready(lab.host("jump", user="hop", jump_only=True))
    inner = ready(lab.host("inner", user="ubuntu", behind=jump))
    with pytest.raises(OSError, match=r"timed out|No route"):
        greeting(inner, 1)
    assert ssh(lab, inner, "hostname", via=jump).stdout == "inner\n"
    assert "not available" in ssh(lab, jump, "hostname").stdout
    jump.reboot()
    assert ssh(lab, inner, "hostname", via=ready(jump)).stdout == "inner\n"


@pytest.fixture
def cloud_lab() -> Iterator[HostLab]:
    try:
        lab = HostLab(metadata=True)
    except HostsUnavailable as exc:
        pytest.skip(str(exc))
    with lab:
        yield lab


def test_hosts_with_a_clouds_addresses_and_metadata(cloud_lab: HostLab) -> None:
    lab = cloud_lab
    script = "#!/bin/sh\necho hello > /root/hello\n"
    host = lab.host("i-1", address="172.31.5.7", public=f"54.214.{lab.number}.9", user_data=script)
    peer = lab.host("i-2", address="172.31.90.8")
    host.metadata.update({"instance-id": "i-1"})
    ready(host)
    with socket.create_connection((f"54.214.{lab.number}.9", 22), LONG_S) as connection:
        assert connection.recv(4) == b"SSH-"
    ready(peer)
    host.console("python3 -c \"import socket; socket.create_connection(('172.31.90.8', 22), 20)\"")
    ask = """
import sys, urllib.error, urllib.request
def ask(method, path, **headers):
    url = "http://169.254.169.254/latest/" + path
    request = urllib.request.Request(url, method=method, headers={k.replace("_", "-"): v for k, v in headers.items()})
    try:
        return urllib.request.urlopen(request, timeout=20).read().decode()
    except urllib.error.HTTPError as exc:
        return str(exc.code)
token = ask("PUT", "api/token", X_aws_ec2_metadata_token_ttl_seconds="60")
for path in ("meta-data/instance-id", "meta-data/spot/instance-action", "user-data"):
    print(ask("GET", path, X_aws_ec2_metadata_token=token), ask("GET", path), sep="|")
"""
    host.path("/root/ask.py").write_text(ask)
    assert host.console("python3 /root/ask.py") == f"i-1|401\n404|401\n{script}|401\n"
    host.metadata["spot/instance-action"] = "soon"
    assert "soon|401" in host.console("python3 /root/ask.py")
    wait_until(lambda: host.path("/var/lib/user-data.exit").exists(), LONG_S, "user data has run")
    assert host.path("/root/hello").read_text() == "hello\n"


def test_a_stopped_machine_comes_back_elsewhere(cloud_lab: HostLab) -> None:
    lab = cloud_lab
    host = ready(lab.host("i-1", address="172.31.5.8", public=f"54.214.{lab.number}.1"))
    with pytest.raises(ValueError, match="runs; shut it down"):
        lab.move(host, public=f"54.214.{lab.number}.2")
    host.shutdown()
    lab.move(host, public=f"54.214.{lab.number}.2")
    host.boot()
    ready(host)
    with socket.create_connection((f"54.214.{lab.number}.2", 22), LONG_S) as connection:
        assert connection.recv(4) == b"SSH-"
    assert host.address == "172.31.5.8"
    lab.terminate(host)


def test_wrong_wishes_are_refused_by_name(lab: HostLab) -> None:
    lab.host("a", boot=False)
    with pytest.raises(ValueError, match="has a host 'a' already"):
        lab.host("a")
    with pytest.raises(ValueError, match="cannot show more"):
        lab.host("b", cpus=4096)
    with pytest.raises(ValueError, match="without clock=True"):
        lab.hosts["a"].set_clock(5)
    assert lab.hosts["a"].processes() == []
