"""Command line of the agent: ``serve``, ``kill``, ``status`` (and ``zygote``, which the agent starts itself).

The same whether it runs as ``python agent.pyz`` or ``python -m skyinfra.runtime``; the latter builds the zipapp
into the state folder and goes on as that, so that there is one way an agent runs.
"""

import argparse
import os
import sys
from typing import List, Optional, Tuple

#: Isolated, without site-packages, without writing bytecode: what is installed on the node cannot get into the agent.
_FLAGS = ["-I", "-S", "-B"]


def main(argv: List[str]) -> int:
    """Returns the exit status; 2 for a wrong command line."""
    if argv[:1] == ["zygote"]:
        from skyinfra.runtime.zygote import main as zygote

        return zygote(int(argv[1]))
    args = _parser().parse_args(argv)
    if args.command == "kill":
        from skyinfra.runtime.kill import main_kill

        return main_kill(args.state, args.grace)
    if args.command == "status":
        from skyinfra.runtime.kill import main_status

        return main_status(args.state)
    return _serve(args, argv)


def _serve(args: argparse.Namespace, argv: List[str]) -> int:
    from skyinfra.runtime.variables import STATE_MARKER

    state = os.path.abspath(args.state)
    archive, version = _archive(state)
    if os.environ.get(STATE_MARKER) != state or not sys.flags.isolated or not sys.flags.no_site:
        # begin again with the marker in the environment: by it `kill` finds every process that descends from here
        env = dict(os.environ, **{STATE_MARKER: state})
        sys.stdout.flush()
        sys.stderr.flush()
        os.execve(sys.executable, [sys.executable, *_FLAGS, archive, *argv], env)
    from skyinfra.runtime.agent import Options, serve

    return serve(
        Options(
            state=state,
            home=os.path.abspath(args.home),
            socket=os.path.abspath(args.socket),
            boot=args.boot,
            generation=args.generation,
            cpus=args.cpus,
            gpus=[gpu for gpu in args.gpus.split(",") if gpu],
            ip=args.ip,
            absolute_paths=args.absolute_paths,
            version=version,
            self_argv=[sys.executable, *_FLAGS, archive],
        )
    )


def _archive(state: str) -> Tuple[str, str]:
    """The zipapp that is this agent, and its version."""
    loader = globals().get("__loader__")
    archive: Optional[str] = getattr(loader, "archive", None)
    if archive is not None:
        return os.path.abspath(archive), loader.get_data(os.path.join(archive, "skyinfra/runtime/BUILD")).decode()  # type: ignore[union-attr]
    from pathlib import Path

    from skyinfra.runtime import package

    return str(package.build(Path(state))), package.agent_version()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="skyinfra-agent", description="The skyinfra node agent.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    commands.required = True
    serve = commands.add_parser("serve", help="run the agent; SIGTERM ends it and leaves its jobs running")
    serve.add_argument("--state", required=True, metavar="DIR", help="its folder; `token` in it is the bearer token")
    serve.add_argument("--home", required=True, metavar="DIR", help="the node's HOME")
    serve.add_argument("--socket", required=True, metavar="PATH", help="unix socket to listen on")
    serve.add_argument("--boot", type=int, required=True)
    serve.add_argument("--generation", type=int, required=True)
    serve.add_argument("--cpus", type=float, required=True)
    serve.add_argument("--gpus", default="", metavar="ID,ID")
    serve.add_argument("--ip", default="127.0.0.1", metavar="ADDR")
    serve.add_argument("--absolute-paths", action="store_true", help="allow file trees outside the node's HOME")
    kill = commands.add_parser("kill", help="end the agent and every job")
    kill.add_argument("--state", required=True, metavar="DIR")
    kill.add_argument("--grace", type=float, default=8.0, metavar="S", help="seconds between asking and killing")
    status = commands.add_parser("status", help="print as JSON whether the agent lives")
    status.add_argument("--state", required=True, metavar="DIR")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
