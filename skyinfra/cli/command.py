"""Hand a command's words to typer: one small app for the one command asked for, plain text, no completion code.

`--config` is given to every command here: a file or `a.b=c`, over what the files of the user and the project say. So is
`--workspace` to the commands that may name a cluster.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import typer

from skyinfra.cli import out, plain_words

__all__ = ["parser", "run", "run_group"]

ClickError: Any = typer.BadParameter.__mro__[2]
"""The class of everything that typer finds wrong with a command line; typer gives it no public name."""

SETTINGS = {"help_option_names": ["-h", "--help"]}
CONFIG = inspect.Parameter(
    "config",
    inspect.Parameter.KEYWORD_ONLY,
    default=None,
    annotation=Annotated[
        list[str] | None, typer.Option("--config", help="Configuration: a file, or a.b=c. Repeatable.")
    ],
)

WITHOUT_WORKSPACE = frozenset({"doctor", "gpus", "catalog"})


def run(name: str, function: Callable[..., Any], words: Sequence[str]) -> int:
    """Parse `words` for `function` and call it; the exit code, 2 for a usage error."""
    return _call(_app_of(name, function), f"skyinfra {name}", words)


def run_group(name: str, functions: Mapping[str, Any], words: Sequence[str]) -> int:
    """The same for a command with subcommands, which may have some themselves. Only the wanted one is built."""
    wanted = words[0] if words else ""
    if isinstance(functions.get(wanted), Mapping):
        return run_group(f"{name} {wanted}", functions[wanted], words[1:])
    if wanted in functions:
        return _call(_app_of(wanted, functions[wanted], in_group=True), f"skyinfra {name} {wanted}", words[1:])
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
        about = f"Subcommands: {', '.join(function)}." if isinstance(function, Mapping) else inspect.getdoc(function)
        print(f"  {inner:<8}  {(about or '').splitlines()[0]}")
    return 0 if words else 2


def _configurable(function: Callable[..., Any], in_workspace: bool = False) -> Callable[..., Any]:
    """The same command with `--config` and, if `in_workspace`, `--workspace`, unless it has that itself. Both hold for
    the whole process before the command begins."""
    signature = inspect.signature(function, eval_str=True)
    parameters = [*signature.parameters.values(), CONFIG]
    added = in_workspace and "workspace" not in signature.parameters
    if added:
        parameters.append(_workspace(signature))

    def configured(*, config: list[str] | None = None, **given: Any) -> Any:
        if config:
            from skyinfra.client.config import use_words

            use_words(config)
        if added and (workspace := given.pop("workspace")) is not None:
            from skyinfra.client.caller import use_workspace

            use_workspace(workspace)
        return function(**given)

    configured.__doc__ = function.__doc__
    configured.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]  # typer reads it
    configured.__annotations__ = {one.name: one.annotation for one in parameters}
    return configured


def _workspace(signature: inspect.Signature) -> inspect.Parameter:
    """`--workspace`, and `-w` where that means nothing else (in `logs` it is the worker)."""
    taken = any(
        "-w" in (getattr(detail, "param_decls", None) or ())
        for one in signature.parameters.values()
        for detail in getattr(one.annotation, "__metadata__", ())
    )
    names = ["--workspace"] if taken else ["--workspace", "-w"]
    option = typer.Option(*names, help="The workspace meant; found by the cluster's name when absent.")
    return inspect.Parameter(
        "workspace", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[str | None, option]
    )


def parser(name: str, function: Callable[..., Any], *, in_group: bool = False) -> Any:
    """The command as it is parsed, with its parameters: what the reference is written from."""
    return typer.main.get_command(_app_of(name, function, in_group=in_group))


def _app_of(name: str, function: Callable[..., Any], *, in_group: bool = False) -> typer.Typer:
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    in_workspace = not in_group and name not in WITHOUT_WORKSPACE
    app.command(name, context_settings=SETTINGS)(_configurable(function, in_workspace))
    return app


def _call(app: typer.Typer, prog_name: str, words: Sequence[str]) -> int:
    plain_words.install()
    try:
        code = app(args=list(words), prog_name=prog_name, standalone_mode=False)
    except ClickError as error:
        out.error(error.format_message(), f"try `{prog_name} --help`")
        return 2
    except typer.Abort:
        raise KeyboardInterrupt from None
    return code if isinstance(code, int) else 0
