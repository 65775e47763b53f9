"""A whole skyinfra in a temporary state folder: real processes, real engine, nothing of the user's touched.

`World` runs the command line as a person would, finds the processes of its state folder by their environment, and
`close` ends every one of them. Used by the end-to-end and fault tests, and fit for users' own tests.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from skyinfra.model.home import Home
from skyinfra.testing.faults import Faults

__all__ = ["Process", "World", "wait_until"]


def wait_until(condition: Callable[[], Any], timeout_s: float, what: str) -> Any:
    """The first true value of `condition`; `TimeoutError` naming `what` after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while True:
        if value := condition():
            return value
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout_s:g} s: {what}")
        time.sleep(0.02)


@dataclass(frozen=True)
class Process:
    """A live process of a state folder, as /proc shows it."""

    pid: int
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(repr=False)

    @property
    def role(self) -> str:
        """client, server, worker, engine, provider, agent or other."""
        line = " ".join(self.argv)
        for role, mark in (
            ("server", "skyinfra.server"),
            ("worker", "skyinfra.stacks.worker"),
            ("client", "skyinfra.cli"),
            ("provider", "pulumi-resource-skyinfra"),
        ):
            if mark in line:
                return role
        if self.argv and os.path.basename(self.argv[0]) == "pulumi":
            return "engine"
        return "agent" if "SKYINFRA_AGENT_STATE" in self.env else "other"


def processes_of(home: Path) -> Iterator[Process]:
    """Every process (zombies left out) that has ``SKYINFRA_HOME=<home>`` in its environment, but this one."""
    wanted = str(home)
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        try:
            raw = Path(f"/proc/{entry}/environ").read_bytes()
            argv = tuple(Path(f"/proc/{entry}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1])
            state = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[0]
        except (OSError, ValueError):
            continue
        env = dict(item.split("=", 1) for item in raw.decode(errors="replace").split("\0") if "=" in item)
        if env.get("SKYINFRA_HOME") == wanted and state != "Z":
            yield Process(int(entry), argv, env)


class World:
    """One state folder and its processes."""

    def __init__(self, root: Path, *, env: Mapping[str, str] | None = None) -> None:
        self.root = root
        self.home = Home(root / "home")
        self.home.root.mkdir(parents=True, exist_ok=True)
        self.faults = Faults(root / "faults")
        self.witness = root / "witness"
        self.witness.mkdir(exist_ok=True)
        user_home = root / "user"
        user_home.mkdir(exist_ok=True)
        run_dir = root / "run"
        run_dir.mkdir(mode=0o700, exist_ok=True)
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("SKYINFRA_", "SKYPILOT_"))}
        engine = os.environ.get("SKYINFRA_PULUMI")
        self.env: dict[str, str] = {
            **kept,
            "HOME": str(user_home),
            "SKYINFRA_HOME": str(self.home.root),
            "SKYINFRA_FAULTS": str(self.faults.folder),
            "XDG_RUNTIME_DIR": str(run_dir),
            **({"SKYINFRA_PULUMI": engine} if engine else {}),
            **(env or {}),
        }

    # -- the command line ------------------------------------------------------------------------------------------
    def popen(
        self,
        *args: str,
        stdout: int = subprocess.PIPE,
        stderr: int = subprocess.PIPE,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start `skyinfra ARGS`, without a terminal."""
        return subprocess.Popen(
            [sys.executable, "-m", "skyinfra.cli.main", *args],
            env=dict(env or self.env),
            cwd=cwd or self.root,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
        )

    def run(
        self, *args: str, timeout_s: float = 60, check: int | None = 0, **kwargs: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run `skyinfra ARGS` to its end; raises `AssertionError` when it exits otherwise than `check` (None = any)."""
        process = self.popen(*args, **kwargs)
        try:
            out, err = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            raise AssertionError(f"skyinfra {args} hung for {timeout_s} s\n{out!r}\n{err!r}") from None
        done = subprocess.CompletedProcess(
            args, process.returncode, out.decode(errors="replace"), err.decode(errors="replace")
        )
        if check is not None and done.returncode != check:
            what = f"skyinfra {args} exited {done.returncode}, expected {check}"
            raise AssertionError(f"{what}\n{done.stdout}\n{done.stderr}")
        return done

    def json(self, *args: str, **kwargs: Any) -> Any:
        """`skyinfra ARGS -o json`, parsed."""
        return json.loads(self.run(*args, "-o", "json", **kwargs).stdout)

    def task(self, name: str, run: str, **extra: Any) -> Path:
        """A task file for the local cloud."""
        path = self.root / f"{name}.yaml"
        path.write_text(json.dumps({"name": name, "resources": {"infra": "local"}, "run": run, **extra}))
        return path

    # -- processes -------------------------------------------------------------------------------------------------
    def processes(self, role: str | None = None) -> list[Process]:
        return [p for p in processes_of(self.home.root) if role is None or p.role == role]

    def server_pid(self) -> int | None:
        try:
            return int(json.loads(self.home.server_json.read_text())["pid"])
        except (OSError, ValueError, KeyError):
            return None

    def close(self) -> None:
        """Kill every process of this state folder until none is left."""

        def none_left() -> bool:
            left = self.processes()
            for process in left:
                try:
                    os.kill(process.pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass  # it ended by itself between the scan and the signal
            return not left

        wait_until(none_left, 15, "no process of the state folder left")
