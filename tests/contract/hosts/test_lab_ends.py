"""A lab leaves nothing, however its process ends; several live side by side."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from skyinfra.testing.hosts import HostLab, why_unavailable
from skyinfra.testing.hosts.folder import reap
from skyinfra.testing.world import wait_until

pytestmark = pytest.mark.skipif(why_unavailable() is not None, reason=str(why_unavailable()))

OTHER_PROCESS = """
import sys
from skyinfra.testing.hosts import HostLab
lab = HostLab()
host = lab.host("left", user="ubuntu", disk_mb=8)
host.wait_for_sshd()
host.console("nohup sleep 4242 >/dev/null 2>&1 &", user="ubuntu")
lab.delay(host, ms=5)
print(lab.number, lab.uplink, lab.key.parent, host.address, *[process.pid for process in host.processes()], flush=True)
sys.stdin.read()
"""


def test_a_killed_process_leaves_no_process_no_network_and_no_file() -> None:
    other = subprocess.Popen(
        [sys.executable, "-c", OTHER_PROCESS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdin is not None
    assert other.stdout is not None
    number, uplink, folder, _, *pids = other.stdout.readline().split()
    assert pids
    try:
        with HostLab() as beside:  # its reaper must not touch the living
            assert beside.number != int(number)
            assert all(Path(f"/proc/{pid}").exists() for pid in pids)
            assert Path(folder).exists()
            assert Path(f"/sys/class/net/{uplink}").exists()
    finally:
        other.send_signal(signal.SIGKILL)
        other.wait()
        other.stdin.close()
        other.stdout.close()
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), 60, "its hosts' processes are gone")
    wait_until(lambda: not Path(f"/sys/class/net/{uplink}").exists(), 60, "its network is gone")
    reap()
    assert not Path(folder).exists()
    with HostLab() as again:
        assert again.number > 0


def test_a_closed_lab_leaves_nothing() -> None:
    with HostLab() as lab:
        folder, uplink = lab.key.parent, lab.uplink
        host = lab.host("a")
        host.console("nohup sleep 4242 >/dev/null 2>&1 &")
        pids = [process.pid for process in host.processes()]
        assert pids
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert not folder.exists()
    wait_until(lambda: not Path(f"/sys/class/net/{uplink}").exists(), 60, "its network is gone")
    lab.close()


def test_why_there_can_be_none_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert why_unavailable() == "test hosts need root"
    monkeypatch.undo()
    monkeypatch.setattr("skyinfra.testing.hosts.unavailable.NEEDED", {"no-such-program": "no-such-package"})
    assert "apt-get install no-such-package" in (why_unavailable() or "")
