"""Sending `remote.node` to a machine and reading its answer: one command, one exchange, nothing left there.

The modules travel compressed on standard input, followed by the request, so neither a file nor an argument on the
machine ever holds what the request does (an agent's token).
"""

from __future__ import annotations

import base64
import functools
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from skyinfra import runtime
from skyinfra.channels.ssh_target import SshFailed
from skyinfra.stacks.clouds.failures import CloudError
from skyinfra.stacks.remote.node.ops import ANSWER

__all__ = ["Completed", "Shell", "ask"]

#: In the order in which they import each other.
_MODULES = (
    *("runtime.procs", "runtime.disk"),
    *(f"stacks.remote.node.{name}" for name in ("machine", "boots", "cleaning", "leases", "agent", "ops")),
)
_PACKAGES = ("skyinfra", "skyinfra.runtime", "skyinfra.stacks", "skyinfra.stacks.remote", "skyinfra.stacks.remote.node")
_LOADER = """
import sys, types
def load(name, text, package):
    module = types.ModuleType(name)
    if package:
        module.__path__ = []
    sys.modules[name] = module
    exec(compile(text, name, "exec"), module.__dict__)
    parent, _, leaf = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], leaf, module)
"""
NO_PYTHON = 97
#: The first Python >= 3.8 runs what comes on standard input. No quote of either kind in the inner text: the login's
#: shell, whichever it is, passes it on.
_FIND = f"""for p in python3 python3.14 python3.13 python3.12 python3.11 python3.10 python3.9 python3.8; do
command -v $p >/dev/null 2>&1 || continue
$p -I -S -B -c "import sys; sys.version_info < (3, 8) and sys.exit({NO_PYTHON}); exec(sys.stdin.read())"
c=$?; [ $c -eq {NO_PYTHON} ] || exit $c
done
python3 --version 2>&1
exit {NO_PYTHON}"""
_COMMAND = ("sh", "-c", _FIND)


class Completed(Protocol):
    """What a command on a machine ended with."""

    @property
    def code(self) -> int: ...
    @property
    def stdout(self) -> bytes: ...
    @property
    def stderr(self) -> bytes: ...


class Shell(Protocol):
    """A connection to a machine that runs commands."""

    def run(self, argv: Sequence[str], stdin: bytes = b"", timeout_s: float = 60.0) -> Completed:
        """Raises `SshFailed` when the connection breaks or the time is over."""
        ...


def ask(shell: Shell, name: str, request: dict[str, Any], timeout_s: float = 60.0) -> dict[str, Any]:
    """The answer of `remote.node.ops`. `name` is the machine's, for messages.

    Raises `CloudError`: user when it has no Python, transient when it did not answer, ours for a defect there.
    """
    program = f"{_program()}\nsys.modules['skyinfra.stacks.remote.node.ops'].main({json_literal(request)})\n"
    try:
        done = shell.run(_COMMAND, program.encode(), timeout_s)
    except SshFailed as exc:
        raise CloudError("transient", exc.reason, name) from exc
    answer = _answer(done.stdout)
    if answer is None:
        raise _failure(name, done)
    if "error" in answer:
        raise CloudError("user", f"{name}: {answer['error']}", name)
    return answer


def json_literal(value: Any) -> str:
    """JSON inside Python text: `null` and `true` are not Python's words."""
    return f"__import__('json').loads({json.dumps(value)!r})"


def _answer(stdout: bytes) -> dict[str, Any] | None:
    for line in reversed(stdout.decode(errors="replace").splitlines()):
        if line.startswith(ANSWER):
            return json.loads(line.removeprefix(ANSWER))
    return None


def _failure(name: str, done: Completed) -> CloudError:
    if done.code == NO_PYTHON:
        there = done.stdout.decode(errors="replace").strip().splitlines()
        found = f"it has {there[-1]}" if there and there[-1].startswith("Python") else "it has none"
        return CloudError("user", f"{name} needs Python 3.8 or newer as python3; {found}", name)
    said = done.stderr.decode(errors="replace").strip() or done.stdout.decode(errors="replace").strip()
    last = said.splitlines()[-1][:300] if said else "nothing"
    if "Traceback" in said:
        return CloudError("ours", f"{name}: {last}")
    return CloudError("transient", f"{name} did not answer (exit {done.code}): {last}", name)


@functools.cache
def _program() -> str:
    root = Path(runtime.__path__[0]).parent
    lines = [_LOADER, *(f"load({package!r}, '', True)" for package in _PACKAGES)]
    for module in _MODULES:
        text = (root / f"{module.replace('.', '/')}.py").read_text()
        lines.append(f"load({f'skyinfra.{module}'!r}, {text!r}, False)")
    packed = base64.b85encode(zlib.compress("\n".join(lines).encode(), 9)).decode()
    return f"import base64, sys, zlib\nexec(zlib.decompress(base64.b85decode({packed!r})).decode())"
