"""Named step boundaries, where a fault campaign can hold a process still.

Production cost: one comparison with ``None``. With ``SKYINFRA_FAULTS`` set to a folder, a process that reaches
``boundary("agent.spawn.made")`` looks for a file ``agent.spawn.made`` there; when it exists the process renames it to
``agent.spawn.made.reached.<pid>`` and stands still until that file is removed (at most `HOLD_S` seconds). The campaign
meanwhile kills whom it wants: this process, the engine, the server. One file holds one process once.

Only the standard library, Python >= 3.8: the node agent imports this too. The list of names lives in
``skyinfra/testing/faults.py``; a test compares it with the calls found in the sources.
"""

import os
import time
from typing import Dict, Mapping

HOLD_S = 20.0
#: The folder of its faults, and a time of day that jumps (`skyinfra.testing.clock`).
CAMPAIGN = ("SKYINFRA_FAULTS", "SKYINFRA_FAULTS_CLOCK", "LD_PRELOAD")
_FOLDER = os.environ.get("SKYINFRA_FAULTS")


def campaign_variables(environ: Mapping[str, str]) -> Dict[str, str]:
    """What of `environ` a process gets that is started with an environment of its own; nothing without a campaign."""
    if "SKYINFRA_FAULTS" not in environ:
        return {}
    return {name: environ[name] for name in CAMPAIGN if name in environ}


def boundary(name: str) -> None:
    """Stand still here when the campaign asked for it; otherwise return at once."""
    if _FOLDER is not None:
        _hold(os.path.join(_FOLDER, name))


def _hold(armed: str) -> None:
    reached = "{}.reached.{}".format(armed, os.getpid())
    try:
        os.rename(armed, reached)
    except FileNotFoundError:
        return
    deadline = time.monotonic() + HOLD_S
    while time.monotonic() < deadline and os.path.exists(reached):
        time.sleep(0.005)
