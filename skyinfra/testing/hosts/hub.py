"""The namespaces that a lab lives in: when they end, everything of the lab has ended.

Process 1 of the hub reads a pipe that only this process holds. However this process ends, the pipe closes, process 1
ends, and the kernel ends every process in the pid namespace, test hosts with their own process 1 included; networks
and mounts go with them. Nothing here has to be told to clean up.
"""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import threading
import time
from pathlib import Path

from skyinfra.testing.hosts.unavailable import HostsUnavailable

__all__ = ["Hub", "run_script"]

START_S = 20.0
CLONE_NEWNET = 0x40000000
SEARCH = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}


def run_script(*lines: str, within: tuple[str, ...] = ()) -> str:
    """Run the lines in one shell, in the namespaces that `within` (an nsenter command) enters; gives stdout.

    Raises `RuntimeError` with what the failing line said.
    """
    script = "\n".join(lines)
    done = subprocess.run([*within, "sh", "-ec", script], capture_output=True, text=True, env=SEARCH)
    if done.returncode:
        raise RuntimeError(f"test hosts: {script!r} failed: {done.stderr.strip() or done.returncode}")
    return done.stdout


def only_child(pid: int, what: str) -> int:
    """The pid of the process's child, waited for. Raises `RuntimeError` when the process ends without one."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        try:
            if children := Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
                return int(children[0])
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                break
        except (FileNotFoundError, ProcessLookupError):
            break
        time.sleep(0.001)
    raise RuntimeError(f"test hosts: {what} did not start")


class Hub:
    """Own network, pid and mount namespaces. Raises `HostsUnavailable` where the kernel refuses them."""

    def __init__(self) -> None:
        argv = ["unshare", "--net", "--pid", "--mount", "--fork", "--kill-child", "sh", "-c", "exec cat > /dev/null"]
        self._process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=SEARCH,
            start_new_session=True,  # Ctrl-C is for the test, which closes the lab in its own order
        )
        try:
            self.pid = only_child(self._process.pid, "the hub")
        except RuntimeError:
            said = self._process.communicate()[1].decode(errors="replace").strip()
            raise HostsUnavailable(f"this machine refuses the namespaces of test hosts: {said}") from None
        # The child exists before it has execed, but not before it is in its namespaces: unshare forks after them.

    def enter(self, *namespaces: str) -> tuple[str, ...]:
        """The beginning of a command that runs in these namespaces (``net``, ``pid``, ``mount``) of the hub."""
        return ("nsenter", "-t", str(self.pid), *(f"--{name}" for name in namespaces), "--")

    def run(self, *lines: str) -> str:
        """Run the lines in one shell in the hub's network namespace."""
        return run_script(*lines, within=self.enter("net"))

    def path(self, path: Path) -> Path:
        """`path` as processes of the hub see it: their mounts are not ours."""
        return Path(f"/proc/{self.pid}/root{path}")

    def listen(self, address: str, port: int) -> socket.socket:
        """A listening socket in the hub's network, usable from here."""
        made: list[socket.socket | OSError] = []
        thread = threading.Thread(target=lambda: made.append(self._listen_there(address, port)))
        thread.start()
        thread.join()
        if isinstance(made[0], OSError):
            raise made[0]
        return made[0]

    def _listen_there(self, address: str, port: int) -> socket.socket | OSError:
        # Entering a network namespace concerns the calling thread only; this one ends right after.
        try:
            namespace = os.open(f"/proc/{self.pid}/ns/net", os.O_RDONLY)
            try:
                libc = ctypes.CDLL(None, use_errno=True)
                if libc.setns(namespace, CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), "setns")
            finally:
                os.close(namespace)
            return socket.create_server((address, port))
        except OSError as exc:
            return exc

    def close(self) -> None:
        """End everything in the hub; returns when the kernel has."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(START_S)
        if self._process.stderr is not None:
            self._process.stderr.close()
