"""The command line as a process: its reader goes away, its terminal knows no Unicode, it is asked for nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

CLI = [sys.executable, "-m", "skyinfra.cli.main"]


def run(*argv: str, home: Path, stdout: int = subprocess.PIPE, **env: str) -> subprocess.CompletedProcess[bytes]:
    full = {**os.environ, "SKYINFRA_HOME": str(home), **env}
    return subprocess.run([*CLI, *argv], env=full, stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.PIPE)


def test_a_reader_that_has_gone_is_no_traceback(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = run("--help", home=tmp_path, stdout=writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_terminal_without_unicode_is_no_traceback(tmp_path: Path) -> None:
    done = run("launch", "nope-\u2026.yaml", home=tmp_path, PYTHONIOENCODING="ascii")
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr


def test_no_command_shows_the_help_and_exits_2(tmp_path: Path) -> None:
    done = run(home=tmp_path)
    assert done.returncode == 2
    assert done.stdout.startswith(b"Usage: skyinfra")
    assert list(tmp_path.iterdir()) == []


def test_version_is_one_line(tmp_path: Path) -> None:
    import skyinfra

    assert run("--version", home=tmp_path).stdout.decode() == f"skyinfra, version {skyinfra.__version__}\n"


def test_debug_shows_the_traceback_and_nothing_else_does(tmp_path: Path) -> None:
    assert b"Traceback" not in run("launch", "nope.yaml", home=tmp_path).stderr
    assert b"Traceback" in run("launch", "nope.yaml", home=tmp_path, SKYINFRA_DEBUG="1").stderr


def test_help_loads_neither_the_http_library_nor_the_model(tmp_path: Path) -> None:
    code = (
        "import sys; from skyinfra.cli.main import COMMANDS, GROUPS, PASSED_ON, main\n"
        "for name in set(COMMANDS) - set(PASSED_ON): assert main([name, '--help']) == 0, name\n"
        "print(sorted({'http.client', 'yaml', 'skyinfra.model.exceptions'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "[]\n")
