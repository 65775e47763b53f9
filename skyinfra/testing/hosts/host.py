"""One test host: its power, its cable, its console.

What happens on it happens for real: its own process table, mounts, name, network and disk, Debian's sshd and cron.
Not its own are the kernel, CPUs and memory, and a power cut loses nothing that was written: the page cache is this
machine's too.
"""

from __future__ import annotations

import os
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

from skyinfra.testing.hosts.disk import Disk, HostPlan, new_host_key, set_clock
from skyinfra.testing.hosts.hub import SEARCH, Hub, only_child
from skyinfra.testing.hosts.wire import Wire
from skyinfra.testing.world import wait_until

__all__ = ["Host", "HostProcess"]

INIT = Path(__file__).with_name("init.sh")
START_S = STOP_S = 20.0


@dataclass(frozen=True)
class HostProcess:
    """A process of a host: its pid on this machine, and its command."""

    pid: int
    argv: tuple[str, ...]


class Host:
    """Made by `HostLab.host`; off until `boot`. Not for two threads at once."""

    def __init__(self, hub: Hub, folder: Path, plan: HostPlan, wires: list[Wire], sshd_after_s: float) -> None:
        self.plan = plan
        self.name = plan.name
        self.user = plan.user
        self.user_data = plan.user_data
        #: What the metadata service tells this host; may be changed while it runs.
        self.metadata: dict[str, str] = {}
        #: The first is the one others know it by.
        self.wires = wires
        #: How long after power-on sshd comes up; read at each boot.
        self.sshd_after_s = sshd_after_s
        self.disk = Disk(hub.path(folder))
        self._hub = hub
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._init_pid = 0

    @property
    def address(self) -> str:
        """The host's own address; reached from this machine unless the host is behind a jump host."""
        return self.wires[0].address

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def add_wire(self, wire: Wire) -> None:
        """One more network card, from now on also at each boot."""
        self.wires.append(wire)
        if self.running:
            wire.plug_in(self._init_pid, len(self.wires) - 1)

    # -- power -----------------------------------------------------------------------------------------------------
    def boot(self) -> None:
        """Power on; returns when the host has its root and network, sshd may need a moment more.

        Does nothing when it runs already. Raises `RuntimeError` with what went wrong.
        """
        if self.running:
            return
        argv = [
            *self._hub.enter("net", "pid", "mount"),
            *("unshare", "--net", "--pid", "--mount", "--uts", "--ipc", "--fork", "--"),
            *(("taskset", "-c", f"0-{self.plan.cpus - 1}") if self.plan.cpus else ()),
            *("sh", str(INIT), str(self._folder), self.name, f"{self.sshd_after_s:g}"),
        ]
        self._process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**SEARCH, "HOME": "/root"},
            cwd="/",
            start_new_session=True,
        )
        unshare = only_child(self._process.pid, f"host {self.name}")
        self._init_pid = only_child(unshare, f"host {self.name}")
        for index, wire in enumerate(self.wires):
            wire.plug_in(self._init_pid, index)
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(b"go\n")
            self._process.stdin.close()
        except BrokenPipeError:
            pass  # it ended already: said below
        up = Path(f"/proc/{self._init_pid}/root/run/test-host-is-up")
        wait_until(lambda: up.exists() or not self.running, START_S, f"host {self.name} is up")
        if not self.running:
            said = (self._process.stderr.read() if self._process.stderr else b"").decode(errors="replace").strip()
            raise RuntimeError(f"test hosts: {self.name} did not boot: {said}")

    def power_cut(self) -> None:
        """Every process is gone at once; the disk stays."""
        self._end(signal.SIGKILL)

    def shutdown(self) -> None:
        """As from the menu: SIGTERM for all, two seconds, off."""
        self._end(signal.SIGTERM)

    def reboot(self, *, power_cut: bool = False) -> None:
        """Down and up again with the same disk; `power_cut`: nobody is told."""
        self._end(signal.SIGKILL if power_cut else signal.SIGTERM)
        self.boot()

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        if self.running:
            try:
                os.kill(self._init_pid, how)
            except ProcessLookupError:
                pass  # it turned itself off meanwhile
        self._process.wait(STOP_S)
        for stream in (self._process.stdin, self._process.stderr):
            if stream is not None:
                stream.close()
        self._process = None
        for wire in self.wires:
            wire.unplug()

    # -- the console: not over the network ---------------------------------------------------------------------------
    def console(self, command: str, *, user: str = "root", check: bool = True, timeout_s: float = 30) -> str:
        """What the shell command prints on the host, whatever its network does.

        Raises `RuntimeError` when it fails and `check`, or when the host is off.
        """
        if not self.running:
            raise RuntimeError(f"test hosts: {self.name} is off")
        who = () if user == "root" else ("setpriv", "--reuid", user, "--regid", user, "--init-groups", "--")
        home = "/root" if user == "root" else f"/home/{user}"
        spaces = ("--pid", "--mount", "--uts", "--ipc", "--net", "--root", f"--wd=/proc/{self._init_pid}/root{home}")
        done = subprocess.run(
            ["nsenter", "-t", str(self._init_pid), *spaces, "--", *who, "sh", "-c", command],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=timeout_s,
            env={**SEARCH, "HOME": home, "USER": user},
        )
        if check and done.returncode:
            said = done.stderr.strip() or done.stdout.strip()
            raise RuntimeError(f"test hosts: {command!r} on {self.name} exited {done.returncode}: {said}")
        return done.stdout

    def processes(self) -> list[HostProcess]:
        """What runs there beside process 1, sshd's listener and cron; sessions that come over SSH count."""
        if not self.running:
            return []
        namespace = os.readlink(f"/proc/{self._init_pid}/ns/pid")
        found = []
        for entry in filter(str.isdigit, os.listdir("/proc")):
            try:
                if os.readlink(f"/proc/{entry}/ns/pid") != namespace:
                    continue
                argv = tuple(Path(f"/proc/{entry}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1])
            except OSError:
                continue  # it ended while we looked
            if argv and not _is_furniture(int(entry), self._init_pid, argv):
                found.append(HostProcess(int(entry), argv))
        return found

    def files(self) -> set[str]:
        """Every file the host's disk holds beyond this machine's; compare two to see what something left."""
        return self.disk.files()

    def path(self, path: str) -> Path:
        """Where a file of the host is for this machine, also when the host is off. Ask again after a boot."""
        # The disk below a mounted overlay must not be written to: the host would not see it.
        root = Path(f"/proc/{self._init_pid}/root") if self.running else self.disk.upper
        return root / path.lstrip("/")

    # -- sshd ------------------------------------------------------------------------------------------------------
    def wait_for_sshd(self, timeout_s: float = 30) -> None:
        """Until sshd listens."""
        wait_until(lambda: self.listens_on(22), timeout_s, f"sshd of {self.name} listens")

    def listens_on(self, port: int) -> bool:
        """Whether some process of the host has the TCP port open (IPv4)."""
        # /proc/PID/net is the network of that process: no need to go there.
        lines = Path(f"/proc/{self._init_pid}/net/tcp").read_text().splitlines()[1:]
        return any(line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "0A" for line in lines)

    def stop_sshd(self) -> None:
        """Connections that stand go on, new ones are refused."""
        self.console("kill $(cat /run/sshd.pid)")
        wait_until(lambda: not self.listens_on(22), STOP_S, f"sshd of {self.name} is down")

    def start_sshd(self) -> None:
        self.console("/usr/sbin/sshd -E /var/log/sshd.log")
        self.wait_for_sshd()

    def change_host_key(self) -> None:
        """As if the machine had been installed anew; sshd starts again if it ran."""
        new_host_key(self.path("/"))
        if self.running:
            self.stop_sshd()
            self.start_sshd()

    # -- clock -----------------------------------------------------------------------------------------------------
    def set_clock(self, offset_s: float) -> None:
        """Programs that start from now on see this machine's time plus `offset_s`; running ones within 10 s.

        Needs `clock=True` and Debian's libfaketime; programs without libc (Go's) see the true time.
        """
        if not self.plan.clock:
            raise ValueError(f"host {self.name} was made without clock=True")
        set_clock(self.path("/"), offset_s)

    def __repr__(self) -> str:
        state = "running" if self.running else "off"
        return f"<Host {self.name} {self.address} {state}>"


def _is_furniture(pid: int, init_pid: int, argv: tuple[str, ...]) -> bool:
    if pid == init_pid or argv == ("sleep", "infinity"):
        return True
    program = os.path.basename(argv[0])
    return program == "cron" or argv[0].startswith("sshd: /usr/sbin/sshd") or argv[0] == "/usr/sbin/sshd"
