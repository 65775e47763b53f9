"""The reference of the command line, made from the commands: ``python -m skyinfra.cli.reference docs`` writes
`reference/cli.md` there.

Reads the table in `main` and each command as typer parses it; what `--help` shows and what the page says cannot differ.
Never imported by a command.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from skyinfra.cli import command, main

__all__ = ["Entry", "Parameter", "entries", "page"]

HEAD = """# Command line

Generated from the commands themselves, by `python -m skyinfra.cli.reference docs`; `skyinfra COMMAND --help` says the
same.

`skyinfra --version` (`-v`), `--commit` (`-c`) and `--help` (`-h`) stand alone. Every command takes `-h`, and all but
{passed_on} take `--config`: a file, or `a.b=c`. Old names that still work: {aliases}. Data goes to standard output,
talk and progress to standard error; nothing is asked without a terminal.

## Exit codes

| code | meaning |
|---|---|
| 0 | done; for `launch`, `exec` and `logs`: the job succeeded, or was not followed to its end |
| 1 | one `error:` line says what went wrong |
| 2 | the command line is wrong |
| 100 | the job failed, in setup, in run or in its driver |
| 101 | the job is not finished (`logs --status`) |
| 102 | there is no such job |
| 103 | the job was cancelled |
| 130, 146 | you left a wait by Ctrl-C or Ctrl-Z; the request goes on |
"""


@dataclass(frozen=True)
class Parameter:
    """One argument or option: how it is written, its explanation, and its default where that says something."""

    written: str
    help: str
    is_argument: bool


@dataclass(frozen=True)
class Entry:
    """One command, subcommands included, with what it takes."""

    name: str
    about: str
    parameters: tuple[Parameter, ...]


def entries() -> Iterator[Entry]:
    """Every command in the order of `skyinfra --help`."""
    for name, (module_name, about) in main.COMMANDS.items():
        if name in main.PASSED_ON:
            yield Entry(name, about, ())
            continue
        module = import_module(f"skyinfra.cli.{module_name}")
        if name in main.GROUPS:
            yield from _of_group(name, module.COMMANDS)
        else:
            yield _entry(name, command.parser(name, getattr(module, module_name)))


def page() -> str:
    """The whole page."""
    aliases = ", ".join(f"`{old}` for `{' '.join(new)}`" for old, new in main.ALIASES.items())
    parts = [HEAD.format(passed_on=", ".join(f"`{name}`" for name in main.PASSED_ON), aliases=aliases)]
    parts += [_section(entry) for entry in entries()]
    return "\n".join(parts)


def _of_group(name: str, functions: Mapping[str, Any]) -> Iterator[Entry]:
    for inner, function in functions.items():
        full = f"{name} {inner}"
        if isinstance(function, Mapping):
            yield from _of_group(full, function)
        else:
            yield _entry(full, command.parser(inner, function, in_group=True))


def _entry(name: str, parsed: Any) -> Entry:
    shown = [one for one in parsed.params if not getattr(one, "hidden", False) and one.name not in ("config", "help")]
    return Entry(name, parsed.help or "", tuple(_parameter(one) for one in shown))


def _parameter(one: Any) -> Parameter:
    is_argument = one.param_type_name == "argument"
    if is_argument:
        name = (one.metavar or one.name.upper()) + ("..." if one.nargs == -1 else "")
        return Parameter(name if one.required else f"[{name}]", one.help or "", True)
    names = ", ".join(sorted(one.opts, key=len)) + "".join(f" / {no}" for no in one.secondary_opts)
    value = "" if one.is_flag else f" {one.metavar or _type_word(one)}"
    default = f" Default: {one.default}." if _says_something(one) else ""
    return Parameter(names + value, (one.help or "") + default, False)


def _type_word(one: Any) -> str:
    """``list[str]`` is what a repeatable option gathers; each time it takes one."""
    bare = str(one.bare_type()).removeprefix("list[").removesuffix("]")
    return {"str": "TEXT", "int": "N", "float": "NUMBER"}.get(bare) or bare.upper()


def _says_something(one: Any) -> bool:
    return not one.is_flag and isinstance(one.default, str | int | float) and one.default != ""


def _section(entry: Entry) -> str:
    words = " ".join(one.written for one in entry.parameters if one.is_argument)
    options = "[OPTIONS] " if any(not one.is_argument for one in entry.parameters) else ""
    text = f"## {entry.name}\n\n{entry.about}\n"
    if entry.name in main.PASSED_ON:
        return f"{text}\nIts words belong to another program: `skyinfra {entry.name} --help`.\n"
    text += f"\n`{f'skyinfra {entry.name} {options}{words}'.rstrip()}`\n"
    if entry.parameters:
        rows = "".join(f"| `{_cell(one.written)}` | {_cell(one.help)} |\n" for one in entry.parameters)
        text += f"\n| | |\n|---|---|\n{rows}"
    return text


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    (Path(sys.argv[1]) / "reference" / "cli.md").write_text(page())
