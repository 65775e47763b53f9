"""What is on a test host's disk before it boots for the first time.

A host's root is an overlay: this machine's files below, read-only; what the host writes, above, in its disk. So it has
this machine's programs and Python, and its own /etc, /root, /home, /tmp, /var. What is ours alone is hidden from it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Disk", "HostPlan", "new_host_key", "set_clock"]

#: The top-level folders of this machine that a host shares; every other one it sees empty.
SHARED = {"bin", "etc", "lib", "lib32", "lib64", "libx32", "opt", "sbin", "usr", "var"}
HIDDEN = ("var/tmp", "var/spool/cron", "var/log", "etc/cron.d", "var/mail")
FIRST_UID = 4242
GPU_MEMORY = "81559 MiB"
FAKETIME = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))

SSHD_CONFIG = """\
HostKey /etc/ssh/ssh_host_ed25519_key
PidFile /run/sshd.pid
UsePAM no
KbdInteractiveAuthentication no
PasswordAuthentication {passwords}
PermitRootLogin prohibit-password
AllowStreamLocalForwarding yes
Subsystem sftp internal-sftp
LogLevel VERBOSE
{extra}"""

#: Answers the questions that are asked of it, from /etc/test-gpus: index, name, uuid per line.
NVIDIA_SMI = """\
#!/bin/sh
[ -e /etc/test-gpus-broken ] && { echo "Unable to determine the device handle for GPU 0: GPU is lost"; exit 15; }
fields=
for word; do case "$word" in --query-gpu=*) fields=$(echo "${word#*=}" | tr , ' ') ;; esac; done
while IFS='|' read -r index name uuid; do
    line=
    for field in $fields; do
        case $field in
            index) value=$index ;;
            name) value=$name ;;
            uuid) value=$uuid ;;
            pci.bus_id) value=00000000:0$index:00.0 ;;
            memory.total) value="@MEMORY@" ;;
            driver_version) value=550.54.15 ;;
            ecc.errors.*) value=0 ;;
            *) echo "Field \\"$field\\" is not a valid field to query."; exit 2 ;;
        esac
        line="$line${line:+, }$value"
    done
    [ -n "$fields" ] && echo "$line" || echo "GPU $index: $name (UUID: $uuid)"
done < /etc/test-gpus
""".replace("@MEMORY@", GPU_MEMORY)

#: The machine's own way to turn itself off; process 1 of the host does it.
SHUTDOWN = "#!/bin/sh\nkill -TERM 1\n"


@dataclass(frozen=True)
class HostPlan:
    """What a host is like; see `HostLab.host`, which takes these by name."""

    name: str
    user: str = "root"
    password: str | None = None
    public_keys: tuple[str, ...] = ()
    jump_only: bool = False
    cpus: int | None = None
    memory_gb: float | None = None
    gpus: tuple[str, ...] = ()
    disk_mb: int | None = None
    clock: bool = False
    user_data: str = ""


class Disk:
    """The folder that holds one host's writes: ``upper``, and overlayfs' ``work``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.upper = path / "upper"

    def make(self, plan: HostPlan) -> None:
        """Everything that is there before the first boot. Raises `OSError`."""
        for folder in (self.upper, self.path / "work"):
            folder.mkdir(parents=True)
        self.upper.chmod(0o755)
        self._hide()
        self._accounts(plan)
        self._sshd(plan)
        self._write("etc/hostname", plan.name + "\n")
        self._write("etc/hosts", f"127.0.0.1 localhost\n127.0.1.1 {plan.name}\n")
        self._write("etc/crontab", "")
        for program in ("shutdown", "poweroff", "halt"):
            self._write(f"usr/local/sbin/{program}", SHUTDOWN, 0o755)
        if plan.gpus:
            names = [name.removeprefix("NVIDIA ") for name in plan.gpus]
            lines = [f"{index}|NVIDIA {name}|GPU-{plan.name}-{index}" for index, name in enumerate(names)]
            self._write("etc/test-gpus", "".join(f"{line}\n" for line in lines))
            self._write("usr/local/bin/nvidia-smi", NVIDIA_SMI, 0o755)
        if plan.memory_gb is not None:
            kib = int(plan.memory_gb * 1024 * 1024)
            self._write("etc/meminfo", f"MemTotal: {kib:15} kB\nMemFree: {kib:16} kB\nMemAvailable: {kib:11} kB\n")
        if plan.clock:
            self._write("etc/ld.so.preload", f"{FAKETIME[-1]}\n")
            set_clock(self.upper, 0)
        if plan.user_data:
            self._write("var/lib/user-data", plan.user_data, 0o755)

    def files(self) -> set[str]:
        """Every file that was written, as the host names it; what it deleted of this machine's is left out."""
        found = set()
        for folder, _, names in os.walk(self.upper):
            for name in names:
                path = Path(folder, name)
                if not path.is_char_device():
                    found.add("/" + str(path.relative_to(self.upper)))
        return found

    def _hide(self) -> None:
        """Empty on the host: an opaque folder covers the one below."""
        tops = [entry.name for entry in Path("/").iterdir() if entry.is_dir() and not entry.is_symlink()]
        ours = [name for name in tops if name not in SHARED]
        for name in (*ours, *HIDDEN):
            folder = self.upper / name
            folder.mkdir(parents=True, exist_ok=True)
            os.setxattr(folder, "trusted.overlay.opaque", b"y")
        for name, mode in (("tmp", 0o1777), ("var/tmp", 0o1777), ("root", 0o700)):
            (self.upper / name).chmod(mode)
        crontabs = self.upper / "var/spool/cron/crontabs"
        crontabs.mkdir(parents=True)
        shutil.chown(crontabs, group="crontab")
        crontabs.chmod(0o1730)

    def _accounts(self, plan: HostPlan) -> None:
        home = "root" if plan.user == "root" else f"home/{plan.user}"
        uid = 0 if plan.user == "root" else FIRST_UID
        hashed = "*"  # no password opens it, and unlike "!" it lets keys in
        if plan.password is not None:
            argv = ["openssl", "passwd", "-6", "-stdin"]
            hashed = subprocess.run(
                argv, input=plan.password, capture_output=True, text=True, check=True
            ).stdout.strip()
        shell = "/usr/sbin/nologin" if plan.jump_only else "/bin/bash"
        lines = {
            "passwd": f"{plan.user}:x:{uid}:{uid}::/{home}:{shell}",
            "group": f"{plan.user}:x:{uid}:",
            "shadow": f"{plan.user}:{hashed}:19000:0:99999:7:::",
        }
        for name, line in lines.items():
            kept = [old for old in Path("/etc", name).read_text().splitlines() if old.split(":")[0] != plan.user]
            self._write(f"etc/{name}", "\n".join([*kept, line]) + "\n", 0o640 if name == "shadow" else 0o644)
        folder = self.upper / home / ".ssh"
        folder.mkdir(parents=True, exist_ok=True)
        self._write(f"{home}/.ssh/authorized_keys", "".join(f"{key.strip()}\n" for key in plan.public_keys), 0o600)
        for path in (self.upper / home, folder, folder / "authorized_keys"):
            os.chown(path, uid, uid)
        for path in (self.upper / home, folder):
            path.chmod(0o700)

    def _sshd(self, plan: HostPlan) -> None:
        new_host_key(self.upper)
        extra = f"Match User {plan.user}\n  PermitTTY no\n  ForceCommand /usr/sbin/nologin\n" if plan.jump_only else ""
        passwords = "no" if plan.password is None else "yes"
        self._write("etc/ssh/sshd_config", SSHD_CONFIG.format(passwords=passwords, extra=extra))

    def _write(self, name: str, text: str, mode: int = 0o644) -> None:
        path = self.upper / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)


def new_host_key(root: Path) -> None:
    """What installing a machine anew does to it; sshd reads it when it starts."""
    key = root / "etc/ssh/ssh_host_ed25519_key"
    for path in (key, key.with_suffix(".pub")):
        path.unlink(missing_ok=True)
    key.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", key], check=True)


def set_clock(root: Path, offset_s: float) -> None:
    (root / "etc/faketimerc").write_text(f"{offset_s:+g}\n")
