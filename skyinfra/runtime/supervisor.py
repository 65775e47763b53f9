"""The supervisor: one process per job attempt, forked by the zygote, outliving the agent.

It claims the attempt (an exclusive record on disk, so that a job never runs twice), runs setup and run, pumps their
output into the log, ends whatever they leave behind, and writes how it went to ``exit.json`` before it goes. It
tells the agent by datagrams, but those are hints: the files are the truth, and a new agent finds everything in
them.

A rank of a job that runs on several nodes waits at its gate, between setup and run, until `GATE_FILE` lies in its
folder.

Signals: SIGTERM = cancel the job. SIGUSR1 = the node is going down: end the job as FAILED_DRIVER. SIGUSR2 = look at the
gate.
"""

import json
import os
import select
import signal
import socket
import time
from typing import Any, Dict, List, Optional, Tuple

from skyinfra.runtime import disk, procs
from skyinfra.runtime.boundary import CAMPAIGN, boundary
from skyinfra.runtime.pump import LinePrefixer, LogFile, Pump
from skyinfra.runtime.say import say

RECORD_RETRY_S = 1.0
#: In a rank's folder: every node is ready, run.
GATE_FILE = "go"
#: How often a wait looks again although nothing woke it (a lost wake-up must not hang a job).
_SAFETY_S = 5.0
_HINT_S = 0.5
_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCHLD)
#: Python ignores SIGPIPE and SIGXFSZ, the supervisor some more; a job starts with the defaults.
_RESET = [signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGHUP, *_SIGNALS]


def main(order: Dict[str, Any]) -> int:
    """Run one attempt. `order` is what `intake.spawn_order` made. Returns the process's exit status."""
    supervisor = Supervisor(order)
    if not supervisor.claim():
        say("job {job_id}: attempt {attempt} is not ours to run".format(**order))
        return 3
    supervisor.run()
    return 0


class Supervisor:
    def __init__(self, order: Dict[str, Any]) -> None:
        self.order = order
        self.folder = order["folder"]
        self.identity = procs.identity()
        self.ending: Optional[int] = None  # the signal that asked us to end the job
        self.exit_codes: List[int] = []
        self._reaped: Dict[int, int] = {}  # pid -> exit code, of everything below us
        self._wake_r, wake_w = os.pipe()
        os.set_blocking(self._wake_r, False)
        os.set_blocking(wake_w, False)
        signal.set_wakeup_fd(wake_w, warn_on_full_buffer=False)
        for number in _SIGNALS:
            signal.signal(number, self._on_signal)
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, set())

    def claim(self) -> bool:
        """Record that this process runs the attempt; False when the attempt was taken or withdrawn."""
        procs.become_subreaper()
        boundary("supervisor.claim.before")
        record = dict(self.identity)
        setting_up = self.order["setup"] or self.order["gate"]
        record.update(state="SETTING_UP" if setting_up else "RUNNING", started_at=time.time())
        try:
            won = disk.claim_json(os.path.join(self.folder, record_name(self.order["attempt"])), record)
        except FileNotFoundError:  # the job has ended and its folder is gone
            return False
        if won:
            boundary("supervisor.started")
            self._tell("started")
        return won

    def run(self) -> None:
        state, reason = "FAILED_DRIVER", ""
        try:
            env = self._take_env()
            state, reason = self._run_steps(env)
        except OSError as exc:
            reason = "the supervisor failed: {}".format(exc)
            self._end_tree()
        self._record_exit(state, reason)

    def _take_env(self) -> Dict[str, str]:
        """Read the job's variables and secrets; from now on they are in the job's environ only."""
        path = os.path.join(self.folder, "env.json")
        env = disk.read_json(path)
        disk.remove_file(path)
        if env is None:
            raise OSError("the job's environment file is missing")
        return env

    def _run_steps(self, user_env: Dict[str, str]) -> Tuple[str, str]:
        order = self.order
        inherited = {k: v for k, v in os.environ.items() if k not in CAMPAIGN}  # no fault is meant for it
        logs = order["log_folder"]
        if not os.path.isdir(logs):  # the agent made it at submit; a job before this one may have removed it
            os.makedirs(logs, mode=0o700)
        if order["setup"]:
            log = LogFile([os.path.join(logs, name) for name in order["logs"]["setup"]])
            env = {**inherited, **order["setup_env"], **user_env, **order["fixed_env"]}
            code, ended = self._step("setup.sh", env, log, order["labels"]["setup"])
            if ended or code != 0:
                return self._verdict("FAILED_SETUP", ended)
            boundary("supervisor.setup.done")
        if not order["run"]:
            return "SUCCEEDED", ""
        if order["gate"] and not self._pass_gate():
            return self._verdict("FAILED", True)
        if order["setup"] or order["gate"]:
            self._record_state("RUNNING", "running")
        env = {**inherited, **order["run_env"], **user_env, **order["fixed_env"]}
        log = LogFile([os.path.join(logs, name) for name in order["logs"]["run"]])
        code, ended = self._step("run.sh", env, log, order["labels"]["run"])
        return ("SUCCEEDED", "") if code == 0 and not ended else self._verdict("FAILED", ended)

    def _record_state(self, state: str, hint: str) -> None:
        record = dict(self.identity, state=state, started_at=time.time())
        disk.replace_json(os.path.join(self.folder, "state.json"), record)
        self._tell(hint)

    def _pass_gate(self) -> bool:
        """Wait until every node is ready; False when we are asked to end instead."""
        boundary("supervisor.gate.before")
        self._record_state("READY", "ready")
        poll = select.poll()
        poll.register(self._wake_r, select.POLLIN)
        while self.ending is None:
            if os.path.exists(os.path.join(self.folder, GATE_FILE)):
                return True
            poll.poll(_SAFETY_S * 1000)
            self._drain_wakeups()
        return False

    def _verdict(self, failed: str, ended: bool) -> Tuple[str, str]:
        if not ended:
            return failed, ""
        if self.ending == signal.SIGTERM:
            return "CANCELLED", "cancelled"
        return "FAILED_DRIVER", "the node was stopped while the job ran"

    def _step(self, script: str, env: Dict[str, str], log: LogFile, label: str) -> Tuple[int, bool]:
        """Run one script to its end, with everything it left behind ended too.

        Returns its exit code (minus the signal) and whether we ended it. An outcome that exists stays: a cancel that
        comes while the leftovers are ended comes too late.
        """
        if self.ending is not None:
            return -self.ending, True
        read_end, write_end = os.pipe()
        pid = self._start(os.path.join(self.folder, script), env, write_end)
        os.close(write_end)
        if script == "run.sh":
            boundary("supervisor.run.started")
        pump = Pump(read_end, log, LinePrefixer(label.format(pid=pid).encode()))
        code = self._follow(pid, pump)
        ended = code is None
        if ended:
            self._end_tree(pump)
        else:
            self._end_leftovers(pump)
        while pump.open and pump.move():
            pass
        pump.close()
        log.close()
        code = self._reaped[pid]
        self.exit_codes = [code]
        return code, ended

    def _start(self, script: str, env: Dict[str, str], output: int) -> int:
        home = self.order["home"]
        workdir = os.path.join(home, "sky_workdir")
        os.chdir(workdir if os.path.isdir(workdir) else home)
        null = os.open(os.devnull, os.O_RDONLY)
        actions = [(os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, output, 1), (os.POSIX_SPAWN_DUP2, output, 2)]
        try:
            return os.posix_spawn(
                self.order["bash"],
                ["bash", script],
                env,
                file_actions=actions,
                setpgroup=0,
                setsigmask=[],
                setsigdef=_RESET,
            )
        finally:
            os.close(null)
            os.chdir("/")

    def _follow(self, pid: int, pump: Pump) -> Optional[int]:
        """Pump until the script ends (its exit code) or we are asked to end it (None)."""
        poll = select.poll()
        poll.register(self._wake_r, select.POLLIN)
        poll.register(pump.pipe, select.POLLIN)
        while True:
            for fd, _ in poll.poll(_SAFETY_S * 1000):
                if fd == self._wake_r:
                    self._drain_wakeups()
                elif pump.open:
                    pump.move()
                    if not pump.open:
                        poll.unregister(fd)
            self._reap()
            if pid in self._reaped:
                while pump.open and pump.move():
                    pass
                return self._reaped[pid]
            if self.ending is not None:
                return None

    def _end_leftovers(self, pump: Pump) -> None:
        """What the script left running gets SIGTERM, 5 s, SIGKILL, and is named in the log."""
        if not self._reap():
            return
        left = self._family()
        names = ", ".join("{} (pid {})".format(p.name, p.pid) for p in left.values())
        if left:
            many = "process" if len(left) == 1 else "processes"
            pump.say("skyinfra: ending {} {} the script left running: {}".format(len(left), many, names))
        self._end_tree(pump)

    def _end_tree(self, pump: Optional[Pump] = None) -> None:
        def work() -> None:
            self._reap()
            while pump is not None and pump.open and pump.move():
                pass

        # a subreaper without children has no descendants: only that proves the tree ended
        while self._reap():
            if not procs.end_all(self._family, procs.TERM_GRACE_S, work):
                time.sleep(0.005)  # a child between its end and its zombie: visible nowhere, reaped next time

    def _family(self) -> Dict[int, procs.Stat]:
        table = procs.snapshot()
        found = procs.family([os.getpid()], table)
        return {pid: table[pid] for pid in found if pid != os.getpid()}

    def _reap(self) -> bool:
        """Collect ended children; False when no child is left at all."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            self._reaped[pid] = procs.exit_code(status)

    def _record_exit(self, state: str, reason: str) -> None:
        boundary("supervisor.exit.before")
        record = dict(self.identity, state=state, reason=reason, exit_codes=self.exit_codes, ended_at=time.time())
        while True:
            try:
                disk.replace_json(os.path.join(self.folder, "exit.json"), record)
                break
            except FileNotFoundError:
                return  # the state folder was removed: nobody is left to read it
            except OSError as exc:
                if exc.errno not in disk.FULL:
                    raise
                time.sleep(RECORD_RETRY_S)  # a full disk: the outcome must not be lost with this process
        boundary("supervisor.exit.recorded")
        self._tell("exit")

    def _tell(self, what: str) -> None:
        """A hint to whichever agent listens now. None may: the pidfd and the files tell it all the same."""
        message = json.dumps({"job_id": self.order["job_id"], "attempt": self.order["attempt"], "what": what}).encode()
        try:
            state = os.open(self.order["state_folder"], os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.settimeout(_HINT_S)  # the kernel queues ten; an agent that lives reads them at once
                # by way of /proc: the state folder's own path may exceed the 108 bytes of a socket address
                sock.sendto(message, "/proc/self/fd/{}/hints".format(state))
        except OSError:
            pass  # no agent, or one that is busy: see above
        finally:
            os.close(state)

    def _on_signal(self, number: int, _frame: Any) -> None:
        if number in (signal.SIGTERM, signal.SIGUSR1) and self.ending is None:
            self.ending = number

    def _drain_wakeups(self) -> None:
        try:
            while os.read(self._wake_r, 512):
                pass
        except BlockingIOError:
            pass


def record_name(attempt: int) -> str:
    """The file that says who runs attempt `attempt` of a job."""
    return "supervisor-{}.json".format(attempt)
