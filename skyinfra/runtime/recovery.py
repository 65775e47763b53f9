"""What a new agent does with the jobs of the one before it: re-attach, finish, begin again, or give up.

Runs once, before the agent serves. Nothing here ends a job that a living supervisor still runs.
"""

import os
import re
import time

from skyinfra.runtime import disk, idle, procs
from skyinfra.runtime.jobs import STOPPED_BEFORE, Jobs
from skyinfra.runtime.ledger import RANK_IDS, Plan

STOPPED = "the node was stopped while the job ran"
RESTARTED = "the machine was restarted while the job ran"
_TEMPORARY = re.compile(r"\.\d+\.tmp$")


def recover(jobs: Jobs, boot: int) -> bool:
    """Take over `jobs.ledger`. A higher `boot` than the last one means the node was stopped: nothing waits any more.

    True when it was stopped.
    """
    ledger = jobs.ledger
    rebooted = boot > int(ledger.meta("boot") or boot)
    power_lost = ledger.meta("boot_id") not in (None, procs.boot_id())
    plans = ledger.unfinished()
    _remove_strangers(jobs, {plan.job_id for plan in plans})
    for plan in plans:
        if plan.attempt and plan.placement is not None:
            if plan.is_gang:
                jobs.queue.hold(plan.job_id, plan.placement)
                jobs.gangs.reattach(plan, STOPPED if rebooted else RESTARTED if power_lost else None)
                continue
            if plan.job_id < RANK_IDS:
                jobs.queue.hold(plan.job_id, plan.placement)
            jobs.active[plan.job_id] = None
        _recover_one(jobs, plan, rebooted, power_lost)
    if rebooted:
        jobs.drain(None)  # it was drained for the stop that is now over
    elif (ended := ledger.last_end()) is not None:  # a new agent is no activity
        jobs.idle_since, jobs.idle_from = ended, time.monotonic() - idle.age_s(ended, ledger.meta("idle"))
    ledger.set_meta("boot", str(boot))
    ledger.set_meta("boot_id", procs.boot_id())
    return rebooted


def _recover_one(jobs: Jobs, plan: Plan, rebooted: bool, power_lost: bool) -> None:
    if jobs.sync(plan.job_id):
        return
    record = disk.read_json(os.path.join(jobs.folder(plan.job_id), "env.json"))
    if plan.attempt and plan.placement is not None:
        if power_lost:
            # records are not fsynced: that none is there does not prove that nothing ran
            jobs.finish(plan.job_id, "FAILED_DRIVER", reason=RESTARTED)
        else:
            if rebooted:
                jobs.not_again.add(plan.job_id)
            jobs.settle(plan.job_id)
    elif plan.cancel_at is not None:
        jobs.finish(plan.job_id, "CANCELLED", reason="cancelled")
    elif rebooted:
        jobs.finish(plan.job_id, "FAILED_DRIVER", reason=STOPPED_BEFORE)
    elif record is None:
        jobs.finish(plan.job_id, "FAILED_DRIVER", reason="its files are gone from the node")
    else:
        jobs.requeue(plan.job_id)


def _remove_strangers(jobs: Jobs, known: "set[int]") -> None:
    """Folders of submits that died before their row, or of jobs that died between the row and their removal."""
    root = os.path.join(jobs.node.state_folder, "jobs")
    for name in os.listdir(root):
        if not name.isdigit() or int(name) not in known:
            disk.remove_tree(os.path.join(root, name))
    for name in os.listdir(jobs.node.state_folder):
        if _TEMPORARY.search(name):
            disk.remove_file(os.path.join(jobs.node.state_folder, name))
