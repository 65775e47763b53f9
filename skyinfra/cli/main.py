"""Entry point: the table of commands, the top-level help, and the one place where errors become text and exit codes.

A command's module has a function of the command's name (a group: a function per subcommand, listed in its `COMMANDS`)
with typer's annotations; it returns its exit code, or None for 0. Only the invoked command's module is imported.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from skyinfra.cli import out

__all__ = ["main"]

COMMANDS: dict[str, tuple[str, str]] = {
    "launch": ("launch", "Make a cluster if need be, and run a task on it."),
    "exec": ("exec_", "Run a task or a command on a cluster that is up."),
    "status": ("status", "Show clusters."),
    "queue": ("queue", "Show the jobs of clusters."),
    "logs": ("logs", "Show or fetch the log of a job."),
    "cancel": ("cancel", "Cancel jobs."),
    "stop": ("stop", "Stop clusters; their disks stay."),
    "start": ("start", "Start clusters that are stopped."),
    "autostop": ("autostop", "Stop or remove clusters when they have been idle for a while."),
    "down": ("down", "Remove clusters and everything they hold."),
    "history": ("history", "Show what a cluster's stack went through."),
    "diff": ("diff", "Show what differs between two updates of a cluster, or now and planned."),
    "rollback": ("rollback", "Make a cluster what it was after an earlier update."),
    "stack": ("stack", "A cluster's Pulumi stack: env."),
    "eject": ("eject", "Write a cluster as an ordinary Pulumi project."),
    "cost-report": ("cost_report", "Show what clusters cost, also those that are gone."),
    "check": ("check", "Show which clouds can be used, and why not the others."),
    "ssh": ("ssh", "Pools of machines reached over SSH: up, down, status."),
    "workspace": ("workspace", "The workspace that commands use: use, info."),
    "gpus": ("gpus", "Accelerators: how many, on which machines, at what price."),
    "catalog": ("catalog", "Prices: how old they are, and newer ones."),
    "api": ("api", "The API server and its requests: start, stop, status, logs, cancel, login, token…"),
    "engine": ("engine", "The Pulumi engine that skyinfra uses: where it is, install it."),
    "reap": ("reap", "Find and remove what costs and belongs to no cluster."),
    "doctor": ("doctor", "Compare what exists on this machine with what the server knows."),
}
GROUPS = ("api", "catalog", "gpus", "ssh", "stack", "workspace")
ALIASES = {"show-gpus": ("gpus", "list")}
"""Commands by older names."""
PASSED_ON = ("engine",)
"""Commands whose words, --help included, belong to another program."""
NOT_YET = (
    *("storage", "volumes", "jobs", "serve"),
    *("local", "dashboard", "debug-dump", "recipes"),
)

USAGE = """Usage: skyinfra [OPTIONS] COMMAND [ARGS]...

  SkyPilot's API, Pulumi's guarantees: a cluster is a Pulumi stack.

Options:
  -v, --version  Show the version and exit.
  -c, --commit   Show the commit this was built from and exit.
  -h, --help     Show this message and exit.

Commands:
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; the exit code. Never raises and never shows a traceback (SKYINFRA_DEBUG=1 shows it)."""
    words = list(sys.argv[1:] if argv is None else argv)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]  # a terminal without … is no reason to fail
    try:
        code = _dispatch(words)
        sys.stdout.flush()  # here, where a reader that has gone is dealt with, and not at the interpreter's end
        return code
    except KeyboardInterrupt:
        out.say("")
        return 130
    except BrokenPipeError:
        # whoever read our output has gone; give the interpreter's last flush somewhere to go
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141
    except Exception as error:
        from skyinfra.cli import failures

        return failures.report(error)


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        print(USAGE + "\n".join(f"  {name:<11}  {text}" for name, (_, text) in COMMANDS.items()))
        return 0 if words else 2
    name, *rest = (*ALIASES.get(words[0], words[:1]), *words[1:])
    if name in ("-v", "--version"):
        from skyinfra import __version__

        print(f"skyinfra, version {__version__}")
        return 0
    if name in ("-c", "--commit"):
        print(f"skyinfra, commit {_commit()}")
        return 0
    if name not in COMMANDS:
        return _unknown(name)
    from importlib import import_module

    module = import_module(f"skyinfra.cli.{COMMANDS[name][0]}")
    if name in PASSED_ON:
        return module.run(rest)
    from skyinfra.cli import command

    if name in GROUPS:
        return command.run_group(name, module.COMMANDS, rest)
    return command.run(name, getattr(module, COMMANDS[name][0]), rest)


def _unknown(name: str) -> int:
    if name.startswith("-"):
        out.error(f"no such option: {name}", "try `skyinfra --help`")
        return 2
    if name in NOT_YET:
        out.error(f"`skyinfra {name}` is not in skyinfra yet", "`skyinfra --help` lists what is")
        return 1
    from difflib import get_close_matches

    close = get_close_matches(name, COMMANDS, 1)
    out.error(f"no such command: {name}", f"did you mean `skyinfra {close[0]}`?" if close else "try `skyinfra --help`")
    return 2


def _commit() -> str:
    """The checkout's HEAD; "unknown" for an installed package."""
    import subprocess

    here = os.path.dirname(os.path.abspath(__file__))
    try:
        done = subprocess.run(["git", "-C", here, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip() or "unknown"


if __name__ == "__main__":
    sys.exit(main())
