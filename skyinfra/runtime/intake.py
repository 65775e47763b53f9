"""From a submit to files, and from a plan to the zygote's order. Decides what is acceptable, starts nothing."""

import json
import os
import re
from typing import Any, Dict, Mapping

from skyinfra.runtime import disk, variables
from skyinfra.runtime.jobqueue import Demand, JobQueue, Share, check_demand
from skyinfra.runtime.ledger import Plan
from skyinfra.runtime.protocol import JobSubmit, NodeConfig
from skyinfra.runtime.variables import Node

#: One line before a script's own first line, so that its line numbers stay right.
_PROLOG = "[ -f ~/.bashrc ] && . ~/.bashrc >/dev/null 2>&1; cd ~/sky_workdir 2>/dev/null || cd ~; "


def check(req: JobSubmit, queue: JobQueue) -> Demand:
    """What the job asks for. Raises `ValueError` for a job that cannot run here."""
    if not req.key:
        raise ValueError("a job needs a key")
    if len(req.ranks) != 1:
        raise ValueError("multi-node comes with worker agents: one rank, not {}".format(len(req.ranks)))
    env = environment(req)
    for name, value in env.items():
        if not name or "=" in name or "\0" in name + value:
            raise ValueError("{!r} cannot be an environment variable".format(name))
    demand = check_demand(float(req.demand.get("cpus", 0.5)), float(req.demand.get("gpus", 0)))
    if not queue.fits(demand):
        has = "{:g} CPUs and {} GPUs".format(queue.cpus, len(queue.gpus))
        has += " ({})".format(queue.lacks) if queue.lacks else ""
        raise ValueError("asks for {:g} CPUs and {:g} GPUs; this node has {}".format(*demand, has))
    return demand


def environment(req: JobSubmit) -> Dict[str, str]:
    """The user's variables, the more particular over the more general. Raises `ValueError`."""
    own = req.ranks[0].get("env") or {}
    if not isinstance(own, dict) or not all(isinstance(value, str) for value in own.values()):
        raise ValueError("a rank's env maps names to strings")
    return {**req.envs, **req.secrets, **own}


def write_files(folder: str, req: JobSubmit) -> None:
    """The job's folder: its scripts, and its variables in one 0600 file. Raises `OSError`."""
    disk.remove_tree(folder)  # of a submit that died before its row: the id was never given out
    os.mkdir(folder, 0o700)
    disk.write_file(os.path.join(folder, "env.json"), json.dumps(environment(req)).encode())
    for name, script in (("setup.sh", req.setup), ("run.sh", req.run)):
        if script:
            disk.write_file(os.path.join(folder, name), (_PROLOG + script).encode("utf-8", "surrogatepass"))


def log_name(job_id: int, name: "str | None") -> str:
    """A folder name from whatever the job is called."""
    return "{}-{}".format(job_id, re.sub(r"[^A-Za-z0-9._-]+", "-", name or "job")[:80])


def spawn_order(
    plan: Plan,
    attempt: int,
    share: Share,
    node: Node,
    config: NodeConfig,
    bash: str,
    folder: str,
    inherited: Mapping[str, str],
) -> Dict[str, Any]:
    """All that a supervisor needs besides the job's folder. No variable of the user's is in it."""
    return {
        "job_id": plan.job_id,
        "attempt": attempt,
        "folder": folder,
        "state_folder": node.state_folder,
        "home": node.home,
        "log_folder": os.path.join(node.home, plan.log_path[2:]),
        "label": re.sub(r"[\x00-\x1f\x7f]", " ", plan.name or "task"),
        "bash": bash,
        "setup": plan.has_setup,
        "run": plan.has_run,
        "setup_env": variables.setup_variables(plan, config, node),
        "run_env": variables.run_variables(plan, 0, config, share),
        "fixed_env": variables.fixed_variables(plan, node, inherited),
    }
