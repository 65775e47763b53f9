"""From a submit to files, and from a plan to the zygote's order. Decides what is acceptable, starts nothing."""

import json
import os
import re
from typing import Any, Dict, Mapping, Optional

from skyinfra.runtime import disk, variables
from skyinfra.runtime.jobqueue import Demand, JobQueue, Share, demand_of
from skyinfra.runtime.ledger import RANK_IDS, Plan, is_gang
from skyinfra.runtime.protocol import JobSubmit, NodeConfig, RankOrder, dump
from skyinfra.runtime.variables import Node

#: In a rank's folder: its order, without scripts and variables of the user's.
RANK_FILE = "rank.json"
#: One line before a script's own first line, so that its line numbers stay right.
_PROLOG = "[ -f ~/.bashrc ] && . ~/.bashrc >/dev/null 2>&1; cd ~/sky_workdir 2>/dev/null || cd ~; "


def check(req: JobSubmit, queue: JobQueue) -> Demand:
    """What the job asks for. Raises `ValueError` for a job that cannot run here."""
    if not req.key:
        raise ValueError("a job needs a key")
    if not req.ranks:
        raise ValueError("a job has one rank at least")
    for rank in range(len(req.ranks)):
        for name, value in environment(req, rank).items():
            if not name or "=" in name or "\0" in name + value:
                raise ValueError("{!r} cannot be an environment variable".format(name))
    cpus, gpus = float(req.demand.get("cpus", 0.5)), float(req.demand.get("gpus", 0))
    demand = demand_of(cpus, gpus, req.ranks)
    if not queue.fits(demand):
        has = " ({})".format(queue.lacks) if queue.lacks else ""
        on = "" if demand.nodes == 1 else " on each of {} nodes".format(demand.nodes)
        raise ValueError("asks for {:g} CPUs and {:g} GPUs{}; {}{}".format(cpus, gpus, on, queue.words, has))
    return demand


def environment(req: JobSubmit, rank: int) -> Dict[str, str]:
    """The user's variables, the more particular over the more general. Raises `ValueError`."""
    own = req.ranks[rank].get("env") or {}
    if not isinstance(own, dict) or not all(isinstance(value, str) for value in own.values()):
        raise ValueError("a rank's env maps names to strings")
    return {**req.envs, **req.secrets, **own}


def write_files(folder: str, req: JobSubmit) -> None:
    """The job's folder: its scripts, and its variables in one 0600 file. Raises `OSError`."""
    disk.remove_tree(folder)  # of a submit that died before its row: the id was never given out
    os.mkdir(folder, 0o700)
    if is_gang(req.ranks):
        # as they came: the ranks' own nodes make files of them
        own = [rank.get("env") or {} for rank in req.ranks]
        env = {"all": {**req.envs, **req.secrets}, "ranks": own, "setup": req.setup, "run": req.run}
        disk.write_file(os.path.join(folder, "env.json"), json.dumps(env).encode())
        return
    _write_scripts(folder, environment(req, 0), req.setup, req.run)


def write_rank_files(folder: str, order: RankOrder) -> None:
    """As `write_files`, of one node's part, with what its supervisor must know besides. Raises `OSError`."""
    disk.remove_tree(folder)
    os.mkdir(folder, 0o700)
    _write_scripts(folder, order.envs, order.setup, order.run)
    kept = {name: value for name, value in dump(order).items() if name not in ("envs", "setup", "run")}
    disk.write_file(os.path.join(folder, RANK_FILE), json.dumps(kept).encode())


def rank_share(folder: str) -> Share:
    """What a rank holds of its node. Raises `OSError` when its order is gone."""
    order = disk.read_json(os.path.join(folder, RANK_FILE))
    if order is None:
        raise OSError("the rank's order is gone from {}".format(folder))
    return Share(order["cpus"], tuple((str(device), float(amount)) for device, amount in order["devices"]))


def _write_scripts(folder: str, env: Dict[str, str], setup: Optional[str], run: Optional[str]) -> None:
    disk.write_file(os.path.join(folder, "env.json"), json.dumps(env).encode())
    for name, script in (("setup.sh", setup), ("run.sh", run)):
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
    order = {
        "job_id": plan.job_id,
        "attempt": attempt,
        "folder": folder,
        "state_folder": node.state_folder,
        "home": node.home,
        "log_folder": os.path.join(node.home, plan.log_path[2:]),
        "logs": {"setup": ["run.log", "setup.log"], "run": ["run.log"]},
        "labels": {"setup": "(setup, pid={pid}) ", "run": "(" + variables.label(plan.name) + ", pid={pid}) "},
        "gate": False,
        "bash": bash,
        "setup": plan.has_setup,
        "run": plan.has_run,
        "fixed_env": variables.fixed_variables(plan, node, inherited),
    }
    rank = disk.read_json(os.path.join(folder, RANK_FILE)) if plan.job_id >= RANK_IDS else None
    if rank is None:
        order["setup_env"] = variables.setup_variables(plan, config, node)
        order["run_env"] = variables.run_variables(plan, 0, config, [str(plan.ranks[0].get("ip", ""))], share)
        return order
    logs = {"setup": [rank["log"]], "run": [rank["log"]]}
    order.update(logs=logs, labels=rank["labels"], setup_env=rank["setup_env"], run_env=rank["run_env"])
    order["gate"] = plan.has_run
    return order
