"""What a job finds in its environment: the SKYPILOT_* variables, the same as SKYINFRA_*, and its GPUs.

Pure. Which variables exist in setup and which in run is SkyPilot's choice; scripts written for it rely on that.
"""

import json
import math
import re
import time
from typing import Any, Dict, List, Mapping, NamedTuple, Optional

from skyinfra.runtime.jobqueue import Share
from skyinfra.runtime.ledger import Plan
from skyinfra.runtime.protocol import NodeConfig

#: Processes of a job are found by this (and by session and descent) when its supervisor was killed.
JOB_MARKER = "SKYINFRA_JOB"
STATE_MARKER = "SKYINFRA_AGENT_STATE"


class Node(NamedTuple):
    """What all jobs of this agent share."""

    state_folder: str
    home: str
    ip: str


def job_marker(state_folder: str, job_id: int) -> str:
    return "{}:{}".format(state_folder, job_id)


def setup_variables(plan: Plan, config: NodeConfig, node: Node, slot: int = 0) -> Dict[str, str]:
    """SETUP_* ones are about all nodes of the cluster, not only the job's. `slot`: the node on which setup runs."""
    ips = [str(entry["ip"]) for entry in config.node_table] or [node.ip]
    slots = [entry["slot"] for entry in config.node_table]
    rank = slots.index(slot) if slot in slots else 0
    return _both(
        {
            **_common(plan, config),
            "SETUP_NODE_RANK": str(rank),
            "SETUP_NODE_IPS": "\n".join(ips),
            "SETUP_NUM_GPUS_PER_NODE": _gpus_per_node(plan),
        }
    )


def run_variables(plan: Plan, rank: int, config: NodeConfig, ips: List[str], share: Share) -> Dict[str, str]:
    """`ips`: of the job's nodes, by rank."""
    env = _both(
        {
            **_common(plan, config),
            "NODE_RANK": str(rank),
            "NODE_IPS": "\n".join(ips),
            "NUM_GPUS_PER_NODE": _gpus_per_node(plan),
            "INTERNAL_JOB_ID": str(plan.job_id),
        }
    )
    env.update(device_variables(share))
    return env


def device_variables(share: Share) -> Dict[str, str]:
    """Empty, not absent, without GPUs: a job must not see devices that other jobs hold."""
    return {"CUDA_VISIBLE_DEVICES": ",".join(share.device_ids)}


def fixed_variables(plan: Plan, node: Node, inherited: Mapping[str, str]) -> Dict[str, str]:
    """What a task cannot override: where it lives, and how its processes are found."""
    fixed = {
        "HOME": node.home,
        STATE_MARKER: node.state_folder,
        JOB_MARKER: job_marker(node.state_folder, plan.job_id),
        "PYTHONUNBUFFERED": "1",
    }
    if "SKYINFRA_HOME" in inherited:
        fixed["SKYINFRA_HOME"] = inherited["SKYINFRA_HOME"]
    return fixed


def task_id(given: str, config: NodeConfig, job_id: int, now: float) -> str:
    """``sky-<timestamp>_<cluster>_<job id>``, as SkyPilot composes it."""
    if not given:
        stamp = time.strftime("%Y-%m-%d-%H-%M-%S", time.localtime(now))
        given = "sky-{}-{:06d}_{}".format(stamp, int(now % 1 * 1e6), config.cluster.get("cluster_name", "cluster"))
    return "{}_{}".format(given, job_id)


def resources_text(ranks: List[Dict[str, Any]], cpus: float, gpus: float, accelerator: str) -> str:
    """``1x[CPU:0.5]``; with GPUs those alone: ``2x[H100:8]``."""
    what = "{}:{:g}".format(accelerator or "GPU", gpus) if gpus else "CPU:{:g}".format(cpus)
    return "{}x[{}]".format(len(ranks), what)


def label(name: Optional[str]) -> str:
    """What a task is called before its lines, fit for `str.format`."""
    return re.sub(r"[\x00-\x1f\x7f]", " ", name or "task").replace("{", "{{").replace("}", "}}")


def _common(plan: Plan, config: NodeConfig) -> Dict[str, str]:
    info = {name: config.cluster.get(name) for name in ("cluster_name", "cloud", "region", "zone")}
    return {
        "NUM_NODES": str(len(plan.ranks)),
        "TASK_ID": plan.task_id,
        "CLUSTER_INFO": json.dumps(info),
        "USER": plan.user,
    }


def _gpus_per_node(plan: Plan) -> str:
    return str(math.ceil(plan.demand.gpus))


def _both(values: Dict[str, str]) -> Dict[str, str]:
    env = {}
    for name, value in values.items():
        env["SKYPILOT_" + name] = env["SKYINFRA_" + name] = value
    return env
