"""Having the agent come back after a boot: a systemd unit where systemd runs, else cron's ``@reboot``."""

import os
from typing import List, Tuple

from skyinfra.runtime import disk
from skyinfra.stacks.remote.node import machine

Unit = Tuple[str, List[str]]


def keep(identifier: str, script: str) -> str:
    """By what `script` is run at each boot: ``systemd`` (which runs it now, too), ``cron``, or ``no: …`` and why."""
    path, control = _unit(identifier)
    if _has_systemd(control) and _install(path, control, script):
        return "systemd"
    crontab = machine.find("crontab")
    if crontab is None:
        return "no: there is neither systemd nor cron"
    tag = _tag(identifier)
    kept = [line for line in _crontab() if not line.endswith(tag)]
    wanted = [*kept, "@reboot /bin/sh '{}' {}".format(script, tag)]
    code, said = machine.run([crontab, "-"], "\n".join([*wanted, ""]).encode())
    return "cron" if code == 0 else "no: crontab says " + said.strip()[:200]


def forget(identifier: str) -> None:
    """Neither runs it any more. Idempotent; see `left`."""
    path, control = _unit(identifier)
    if os.path.lexists(path):
        machine.run([*control, "disable", os.path.basename(path)])
        disk.remove_file(path)
        machine.run([*control, "daemon-reload"])
    before = _crontab()
    kept = [line for line in before if not line.endswith(_tag(identifier))]
    if kept and kept != before:
        machine.run(["crontab", "-"], "\n".join([*kept, ""]).encode())
    elif kept != before:
        machine.run(["crontab", "-r"])


def left(identifier: str) -> List[str]:
    """What still would start it, in words."""
    path, _ = _unit(identifier)
    found = [path] if os.path.lexists(path) else []
    return found + ["a line in the crontab" for line in _crontab() if line.endswith(_tag(identifier))]


def _tag(identifier: str) -> str:
    return "# skyinfra " + identifier


def _crontab() -> List[str]:
    code, said = machine.run(["crontab", "-l"])
    return said.splitlines() if code == 0 else []


def _unit(identifier: str) -> Unit:
    """Where the unit lies, and how its systemd is spoken to."""
    name = "skyinfra-{}.service".format(identifier)
    if os.getuid() == 0:
        return "/etc/systemd/system/" + name, ["systemctl"]
    return os.path.expanduser("~/.config/systemd/user/" + name), ["systemctl", "--user"]


def _has_systemd(control: List[str]) -> bool:
    if not os.path.isdir("/run/systemd/system") or machine.find("systemctl") is None:
        return False
    if "--user" not in control:
        return True
    os.environ.setdefault("XDG_RUNTIME_DIR", "/run/user/{}".format(os.getuid()))
    if machine.run([*control, "is-system-running"])[1].strip() not in ("running", "degraded"):
        return False
    # without it the user's systemd, and the agent with it, would end with the last login
    return machine.run(["loginctl", "enable-linger"])[0] == 0


def _install(path: str, control: List[str], script: str) -> bool:
    target = "default.target" if "--user" in control else "multi-user.target"
    lines = ["[Unit]", "Description=skyinfra agent", "After=network-online.target", "", "[Service]"]
    # the jobs are no part of the agent's life: it may be stopped and replaced without them noticing
    lines += ['ExecStart=/bin/sh "{}"'.format(script), "KillMode=process", "Restart=no", ""]
    lines += ["[Install]", "WantedBy=" + target, ""]
    os.makedirs(os.path.dirname(path), exist_ok=True)
    disk.write_file(path, "\n".join(lines).encode(), 0o644)
    name = os.path.basename(path)
    if all(
        machine.run([*control, *words])[0] == 0 for words in (["daemon-reload"], ["enable", name], ["restart", name])
    ):
        return True
    machine.run([*control, "disable", name])
    disk.remove_file(path)
    return False
