"""The first hour of somebody who knows `sky`, line by line (first_hour.txt): in a pipe, and on a terminal."""

from __future__ import annotations

import fcntl
import os
import re
import select
import shlex
import shutil
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from skyinfra.testing.world import World

pytestmark = [pytest.mark.engine, pytest.mark.timeout(240)]

HELLO = Path(__file__).parents[2] / "examples" / "hello.yaml"
LINE_TIMEOUT_S = 60
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass(frozen=True)
class Line:
    code: int
    columns: tuple[str, ...]
    words: tuple[str, ...]


def _lines() -> list[Line]:
    found = []
    for text in Path(__file__).with_name("first_hour.txt").read_text().splitlines():
        if not text.startswith("#"):
            code, columns, words = (part.strip() for part in text.split("|", 2))
            names = tuple(name.strip() for name in columns.split(",") if name.strip())
            found.append(Line(int(code), names, tuple(shlex.split(words))))
    return found


def _in_a_pipe(world: World, line: Line) -> tuple[int, str]:
    done = world.run(*line.words, check=None, timeout_s=LINE_TIMEOUT_S)
    assert "\x1b" not in done.stdout + done.stderr, f"colour in a pipe: {line.words}"
    return done.returncode, done.stdout + done.stderr


def _on_a_terminal(world: World, line: Line) -> tuple[int, str]:
    """What the screen shows, without colours; the answer to every question is "n"."""
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 200, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "skyinfra.cli.main", *line.words],
        env={**world.env, "TERM": "xterm"},
        cwd=world.root,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
    )
    os.close(slave)
    try:
        shown = _read_to_the_end(process, master, line)
    finally:
        process.kill()
        process.wait()
        os.close(master)
    return process.returncode, ESCAPE.sub("", shown.decode(errors="replace")).replace("\r\n", "\n")


def _read_to_the_end(process: subprocess.Popen[bytes], master: int, line: Line) -> bytes:
    """To the process's end, not the terminal's: nothing says that a server started meanwhile must have closed it."""
    shown = b""
    deadline = time.monotonic() + LINE_TIMEOUT_S
    while True:
        ended = process.poll() is not None  # before the look, so that what it wrote last is still read
        ready, _, _ = select.select([master], [], [], 0 if ended else 0.1)
        if ready:
            try:
                chunk = os.read(master, 65536)
            except OSError:  # EIO: nobody has the terminal open any more
                process.wait(LINE_TIMEOUT_S)
                return shown
            shown += chunk
            if shown.endswith(b"]: "):
                os.write(master, b"n\n")
        elif ended:
            return shown
        assert time.monotonic() < deadline, f"{line.words} hung\n{shown.decode(errors='replace')}"


@pytest.mark.parametrize("typed", [_in_a_pipe, _on_a_terminal], ids=["pipe", "terminal"])
def test_what_a_sky_user_types_in_the_first_hour(world: World, typed: Callable[[World, Line], tuple[int, str]]) -> None:
    shutil.copy(HELLO, world.root / "hello.yaml")
    lines = _lines()
    assert len(lines) == 30
    for line in lines:
        code, shown = typed(world, line)
        said = f"skyinfra {shlex.join(line.words)} exited {code}\n{shown}"
        assert code == line.code, f"expected exit code {line.code}: {said}"
        assert "Traceback" not in shown, said
        if line.columns:
            headers = [tuple(re.split(r"\s{2,}", row.strip())) for row in shown.splitlines()]
            assert line.columns in headers, f"no table with {line.columns}: {said}"
        if code in (1, 2) and "Aborted." not in shown:
            errors = [row for row in shown.splitlines() if row.startswith("error: ")]
            assert len(errors) == 1, f"one clear line: {said}"
