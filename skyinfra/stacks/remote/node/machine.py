"""What the machine is: size, GPUs, system, who we are on it."""

import os
import platform
import pwd
import shutil
import socket
import subprocess
from typing import Any, Dict, List, Optional, Sequence, Tuple

from skyinfra.runtime import procs

PROGRAM_S = 15.0


def facts() -> Dict[str, Any]:
    """``{cpus, memory_gb, gpus, os, arch, python, hostname, user, home, disk_free_gb, boot_id, ip}``."""
    me = pwd.getpwuid(os.getuid())
    disk = os.statvfs(me.pw_dir)
    return {
        "cpus": cpus(),
        "memory_gb": _memory_gb(),
        "gpus": gpus(),
        "os": _os_name(),
        "arch": platform.machine(),
        "python": platform.python_version(),
        "hostname": socket.gethostname(),
        "user": me.pw_name,
        "home": me.pw_dir,
        "disk_free_gb": round(disk.f_bavail * disk.f_frsize / 1e9, 1),
        "boot_id": procs.boot_id(),
        "ip": own_address(),
    }


def login() -> str:
    return pwd.getpwuid(os.getuid()).pw_name


def cpus() -> int:
    return len(os.sched_getaffinity(0))


def own_address() -> str:
    """The address we were reached at, as the machine knows it itself: what its neighbours reach it at, too."""
    parts = os.environ.get("SSH_CONNECTION", "").split()
    return parts[2] if len(parts) == 4 else "127.0.0.1"


def gpus() -> List[Dict[str, Any]]:
    """``[{index, uuid, name, memory_gb}]`` as nvidia-smi lists them."""
    program = find("nvidia-smi")
    if program is None:
        return []
    query = [program, "--query-gpu=index,uuid,name,memory.total", "--format=csv,noheader,nounits"]
    code, said = run(query)
    if code != 0:
        return []  # a driver that does not answer offers no GPUs
    rows = [[cell.strip() for cell in line.split(",")] for line in said.splitlines() if line.count(",") >= 3]
    return [{"index": r[0], "uuid": r[1], "name": r[2], "memory_gb": _gib(r[3])} for r in rows]


def _gib(mib: str) -> float:
    try:
        return round(float(mib) / 1024, 1)
    except ValueError:
        return 0.0  # nvidia-smi says [N/A] for what shares the host's memory


def _memory_gb() -> float:
    with open("/proc/meminfo") as file:
        for line in file:
            if line.startswith("MemTotal:"):
                return round(int(line.split()[1]) / 2**20, 1)
    return 0.0


def _os_name() -> str:
    try:
        with open("/etc/os-release") as file:
            for line in file:
                if line.startswith("PRETTY_NAME="):
                    return line.partition("=")[2].strip().strip('"')
    except OSError:
        pass  # some systems have none
    return platform.system()


def find(program: str) -> Optional[str]:
    """Also where a login without a terminal does not look."""
    folders = os.environ.get("PATH", os.defpath) + ":/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"
    return shutil.which(program, path=folders)


def run(argv: Sequence[str], stdin: bytes = b"") -> Tuple[int, str]:
    """Exit code and all it printed; 127 and why when it could not run, or not end within `PROGRAM_S`."""
    try:
        done = subprocess.run(
            argv, input=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=PROGRAM_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        return 127, str(exc)
    return done.returncode, done.stdout.decode(errors="replace")
