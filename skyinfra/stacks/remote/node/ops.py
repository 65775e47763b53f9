"""One request on a machine: its answer is the last line of standard output."""

import json
import os
import sys
from typing import Any, Callable, Dict

from skyinfra.stacks.remote.node import agent, cleaning, leases

ANSWER = "SKYINFRA-ANSWER "


def _stop(request: Dict[str, Any]) -> Dict[str, Any]:
    return {"left": cleaning.end_all(os.path.expanduser(request["root"]))}


OPS: Dict[str, Callable[[Dict[str, Any]], Dict[str, Any]]] = {
    "look": leases.look,
    "take": leases.take,
    "give_back": leases.give_back,
    "ensure_agent": agent.ensure,
    "stop": _stop,
}


def main(request: Dict[str, Any]) -> None:
    """A refusal of the machine (a full disk, a folder of another user) is an answer, too."""
    try:
        answer = OPS[request["op"]](request)
    except OSError as exc:
        answer = {"error": "{}: {}".format(exc.strerror or type(exc).__name__, exc.filename or exc)}
    # a login's own output may have left a line open
    sys.stdout.write("\n" + ANSWER + json.dumps(answer) + "\n")
    sys.stdout.flush()
