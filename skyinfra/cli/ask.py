"""Questions. Nothing is asked without a terminal: what would destroy something is refused with a hint instead."""

from __future__ import annotations

import sys

from skyinfra.cli import out
from skyinfra.cli.failures import Left, UsageError

__all__ = ["aborted", "confirm", "confirm_destroying", "hidden_line", "line", "only_one"]


def aborted() -> Left:
    """What to raise when the answer was no: exit code 1, as SkyPilot's."""
    out.say("Aborted.")
    return Left(1)


def confirm(question: str, default: bool = True) -> bool:
    """Ask on the terminal; `default` where nobody can answer."""
    if not out.interactive():
        return default
    return _answer(question, default)


def confirm_destroying(what: str, question: str) -> bool:
    """Ask before something is destroyed. Raises `RuntimeError` where nobody can answer."""
    if not out.interactive():
        from skyinfra.model.exceptions import with_hint

        raise with_hint(RuntimeError(f"{what}: not done without a confirmation"), "add -y to confirm")
    return _answer(question, True)


def line(question: str) -> str:
    """What is typed on the terminal."""
    print(question, end="", file=sys.stderr, flush=True)
    words = sys.stdin.readline()
    if not words:
        raise KeyboardInterrupt
    return words.strip()


def hidden_line(question: str) -> str:
    """The same, without showing it."""
    import getpass

    return getpass.getpass(question).strip()


def only_one(**given: object) -> None:
    """Raises `UsageError` when more than one of the options is given."""
    names = ["--" + name.replace("_", "-") for name, value in given.items() if value]
    if len(names) > 1:
        raise UsageError(f"{' and '.join(names)} exclude each other")


def _answer(question: str, default: bool) -> bool:
    print(f"{question} [{'Y/n' if default else 'y/N'}]: ", end="", file=sys.stderr, flush=True)
    words = sys.stdin.readline()
    if not words:  # end of input: the question was left
        raise KeyboardInterrupt
    word = words.strip().lower()
    return default if not word else word in ("y", "yes")
