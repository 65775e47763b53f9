"""The Pulumi engine's executable: where it is, and how it gets here once. ``python -m skyinfra.stacks.engine``.

`find_engine` looks (`SKYINFRA_PULUMI`, our cache, ``PATH``); `ensure_engine` installs when nothing is found: by
Pulumi's own installer, else by building the pinned version with Go. Refuses to import pulumi here: the server asks
this module too, and the installer runs in a child process.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

__all__ = ["ENGINE_VERSION", "EngineUnavailable", "ensure_engine", "find_engine", "main"]

ENGINE_VERSION = "3.259.0"
INSTALLER_TIMEOUT_S = 300
BUILD_TIMEOUT_S = 1800
STILL_S = float(os.environ.get("SKYINFRA_ENGINE_PROGRESS_S") or 15)
"""How often an installation says that it goes on."""
_MODULE = "github.com/pulumi/pulumi"
_INSTALLER = """
import sys
from semver import VersionInfo
from pulumi.automation import PulumiCommand
PulumiCommand.install(root=sys.argv[1], version=VersionInfo.parse(sys.argv[2]))
"""


class EngineUnavailable(RuntimeError):
    """No Pulumi engine was found, and none could be installed."""


def _cache(env: Mapping[str, str]) -> Path:
    home = env.get("HOME") or str(Path.home())
    return Path(env.get("XDG_CACHE_HOME") or f"{home}/.cache") / "skyinfra" / "engine" / ENGINE_VERSION


def _version_of(path: str) -> tuple[int, ...] | None:
    try:
        said = subprocess.run(
            [path, "version"],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
            env={**os.environ, "PULUMI_SKIP_UPDATE_CHECK": "true"},
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.match(r"v?(\d+)\.(\d+)\.(\d+)", said.strip())
    return tuple(int(part) for part in match.groups()) if match else None


def find_engine(env: Mapping[str, str] = os.environ) -> Path | None:
    """The engine to use, or None. Raises `EngineUnavailable` when `SKYINFRA_PULUMI` names something that is not one."""
    given = env.get("SKYINFRA_PULUMI")
    if given:
        path = Path(given).expanduser()
        if not os.access(path, os.X_OK) or path.is_dir():
            raise EngineUnavailable(f"SKYINFRA_PULUMI is {given}, which is not an executable file")
        return path
    cached = _cache(env) / "bin" / "pulumi"
    if os.access(cached, os.X_OK):
        return cached
    on_path = shutil.which("pulumi", path=env.get("PATH"))
    if on_path:
        version = _version_of(on_path)
        wanted = tuple(int(part) for part in ENGINE_VERSION.split("."))
        if version and wanted <= version < (4,):
            return Path(on_path)
    return None


def ensure_engine(progress: Callable[[str], None], env: Mapping[str, str] = os.environ) -> Path:
    """The engine, installed if need be; two callers at once install it once.

    Raises `EngineUnavailable` with one line that says what was tried.
    """
    found = find_engine(env)
    if found:
        return found
    cache = _cache(env)
    cache.parent.mkdir(parents=True, exist_ok=True)
    with _locked(cache.parent / f"{ENGINE_VERSION}.lock", progress):
        found = find_engine(env)  # another process may have installed it while we waited
        if found:
            return found
        reasons = []
        for attempt in (_install, _build):
            try:
                attempt(cache, env, progress)
                return cache / "bin" / "pulumi"
            except EngineUnavailable as exc:
                reasons.append(str(exc))
    raise EngineUnavailable(
        f"no Pulumi engine {ENGINE_VERSION} and none could be installed: {'; '.join(reasons)}."
        " Install Pulumi or set SKYINFRA_PULUMI to its executable"
    )


@contextlib.contextmanager
def _locked(path: Path, progress: Callable[[str], None]) -> Iterator[None]:
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("waiting for another process that installs the Pulumi engine")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _adopt(built: Path, cache: Path) -> None:
    """Put a finished executable in its place, by rename: a half-written one is never found."""
    if _version_of(str(built)) is None:
        raise EngineUnavailable(f"{built.name} does not run")
    (cache / "bin").mkdir(parents=True, exist_ok=True)
    for file in built.parent.iterdir():  # the installer brings language hosts along
        os.replace(file, cache / "bin" / file.name)


def _install(cache: Path, env: Mapping[str, str], progress: Callable[[str], None]) -> None:
    progress(f"installing the Pulumi engine {ENGINE_VERSION}")
    with tempfile.TemporaryDirectory(dir=cache.parent, prefix="install-") as root:
        argv = [sys.executable, "-c", _INSTALLER, root, ENGINE_VERSION]
        try:
            _run(argv, "installing", INSTALLER_TIMEOUT_S, progress, env=dict(env))
        except subprocess.TimeoutExpired as exc:
            raise EngineUnavailable(f"Pulumi's installer took over {INSTALLER_TIMEOUT_S} s") from exc
        except subprocess.CalledProcessError as exc:
            raise EngineUnavailable(f"Pulumi's installer failed ({_last_line(exc.stderr)})") from exc
        _adopt(Path(root) / "bin" / "pulumi", cache)


def _build(cache: Path, env: Mapping[str, str], progress: Callable[[str], None]) -> None:
    go = shutil.which("go", path=env.get("PATH"))
    if go is None:
        raise EngineUnavailable("Go, which could build it, is not installed")
    progress(f"building the Pulumi engine {ENGINE_VERSION} with Go; this takes about three minutes, once")
    with tempfile.TemporaryDirectory(dir=cache.parent, prefix="build-") as root:
        module = Path(root) / "module"
        module.mkdir()
        for name in ("go.mod", "go.sum"):
            shutil.copyfile(Path(__file__).parent / "engine_build" / name, module / name)
        target = Path(root) / "bin" / "pulumi"
        target.parent.mkdir()
        try:
            settings = {**env, "CGO_ENABLED": "0", "GOWORK": "off"}
            _run(build_argv(go, target), "building", BUILD_TIMEOUT_S, progress, env=settings, cwd=module)
        except subprocess.TimeoutExpired as exc:
            raise EngineUnavailable(f"building it took over {BUILD_TIMEOUT_S} s") from exc
        except subprocess.CalledProcessError as exc:
            raise EngineUnavailable(f"go build failed ({_last_line(exc.stderr)})") from exc
        _adopt(target, cache)


def _run(
    argv: list[str],
    doing: str,
    timeout_s: float,
    progress: Callable[[str], None],
    env: dict[str, str],
    cwd: Path | None = None,
) -> None:
    """Run it, and say every `STILL_S` that it still runs: minutes of silence look like a hang.

    Raises `subprocess.TimeoutExpired`, and `subprocess.CalledProcessError` with what it said.
    """
    began = time.monotonic()
    quiet = subprocess.DEVNULL
    with subprocess.Popen(argv, stdin=quiet, stdout=quiet, stderr=subprocess.PIPE, text=True, env=env, cwd=cwd) as run:
        while True:
            try:
                _, said = run.communicate(timeout=STILL_S)
                break
            except subprocess.TimeoutExpired:
                passed_s = time.monotonic() - began
                if passed_s > timeout_s:
                    run.kill()
                    raise
                progress(f"still {doing} the Pulumi engine ({passed_s:.0f} s)")
    if run.returncode:
        raise subprocess.CalledProcessError(run.returncode, argv, stderr=said)


def build_argv(go: str, target: Path) -> list[str]:
    """The command that builds the engine from ``engine_build/``."""
    version = f"-s -w -X {_MODULE}/sdk/v3/go/common/version.Version=v{ENGINE_VERSION}"
    tags = "osusergo grpcnotrace"
    return [
        go,
        "build",
        "-trimpath",
        "-tags",
        tags,
        "-ldflags",
        version,
        "-o",
        str(target),
        f"{_MODULE}/pkg/v3/cmd/pulumi",
    ]


def _last_line(text: str | None) -> str:
    lines = [line.strip() for line in (text or "").splitlines() if line.strip()]
    return lines[-1][:200] if lines else "no message"


def main(argv: list[str] | None = None) -> int:
    """``path`` prints where the engine is (exit 1: nowhere), ``install`` makes sure of it, ``version`` asks it."""
    words = sys.argv[1:] if argv is None else argv
    word = words[0] if words else "path"
    try:
        if word == "install":
            print(ensure_engine(lambda text: print(text, file=sys.stderr, flush=True)))
            return 0
        if word not in ("path", "version"):
            print("usage: python -m skyinfra.stacks.engine [path|install|version]", file=sys.stderr)
            return 2
        found = find_engine()
        if found is None:
            print("error: no Pulumi engine here yet\n\nhint: skyinfra engine install", file=sys.stderr)
            return 1
        version = ".".join(str(part) for part in _version_of(str(found)) or ())
        print(found if word == "path" else version)
        return 0
    except EngineUnavailable as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
