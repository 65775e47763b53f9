"""Hand a command's words to typer: one small app for the one command asked for, plain text, no completion code."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import typer

from skyinfra.cli import out

__all__ = ["run", "run_group"]

ClickError: Any = typer.BadParameter.__mro__[2]
"""The class of everything that typer finds wrong with a command line; typer gives it no public name."""

SETTINGS = {"help_option_names": ["-h", "--help"]}


def run(name: str, function: Callable[..., Any], words: Sequence[str]) -> int:
    """Parse `words` for `function` and call it; the exit code, 2 for a usage error."""
    app = _app()
    app.command(name, context_settings=SETTINGS)(function)
    return _call(app, f"skyinfra {name}", words)


def run_group(name: str, functions: Mapping[str, Callable[..., Any]], words: Sequence[str]) -> int:
    """The same for a command with subcommands. Only the wanted one is built, unless there is none to be found."""
    wanted = words[0] if words else ""
    if wanted in functions:
        app = _app()
        app.command(wanted, context_settings=SETTINGS)(functions[wanted])
        return _call(app, f"skyinfra {name} {wanted}", words[1:])
    if words and not wanted.startswith("-"):
        out.error(f"no such command: {name} {wanted}", f"try `skyinfra {name} --help`")
        return 2
    if words and wanted not in ("-h", "--help"):
        out.error(f"no such option: {wanted}", f"try `skyinfra {name} --help`")
        return 2
    print(
        f"Usage: skyinfra {name} [OPTIONS] COMMAND [ARGS]...\n\nOptions:\n  -h, --help  Show this message and exit.\n"
    )
    print("Commands:")
    for inner, function in functions.items():
        print(f"  {inner:<8}  {(inspect.getdoc(function) or '').splitlines()[0]}")
    return 0 if words else 2


def _app() -> typer.Typer:
    return typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


def _call(app: typer.Typer, prog_name: str, words: Sequence[str]) -> int:
    try:
        code = app(args=list(words), prog_name=prog_name, standalone_mode=False)
    except ClickError as error:
        out.error(error.format_message(), f"try `{prog_name} --help`")
        return 2
    except typer.Abort:
        raise KeyboardInterrupt from None
    return code if isinstance(code, int) else 0
