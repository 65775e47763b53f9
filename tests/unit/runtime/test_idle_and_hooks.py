"""The idle clock, what counts as an SSH session, and which hooks an event runs."""

import subprocess
import time

from skyinfra.runtime import procs
from skyinfra.runtime.hooks import bound_to
from skyinfra.runtime.idle import IdleClock, age_s, stamp, terminal_sessions
from skyinfra.runtime.protocol import NodeConfig


class Time:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def test_idleness_counts_from_the_last_sign_of_life():
    time = Time()
    clock = IdleClock("a", now=time)
    time.now += 5
    assert clock.look(False, "a") == 5
    assert clock.look(True, "a") == 0, "busy"
    time.now += 3
    assert clock.look(False, "a") == 3
    assert clock.look(False, "b") == 0, "something happened between two looks"
    time.now += 2
    assert clock.look(False, "b") == 2


def test_a_clock_goes_on_where_its_predecessor_was_and_never_in_the_future():
    assert IdleClock("a", 30.0, now=Time()).look(False, "a") == 30
    assert IdleClock("a", -3600.0, now=Time()).look(False, "a") == 0, "the wall clock was set back"


def test_only_sessions_with_a_terminal_count():
    before = terminal_sessions()
    titles = ("sshd: ann@pts/3", "sshd-session: ann@pts/4", "sshd: ann@notty", "sshd: /usr/sbin/sshd -D [listener]")
    sleepers = [subprocess.Popen([title, "60"], executable="/bin/sleep") for title in titles]
    try:
        assert terminal_sessions() - before == 2
    finally:
        for sleeper in sleepers:
            sleeper.kill()
            sleeper.wait()


def test_a_hook_runs_for_its_events_and_autostops_own_only_by_itself():
    config = NodeConfig(
        autostop={"hook": "own", "hook_timeout": 7},
        hooks=[{"run": "both"}, {"run": "on stop", "events": ["stop"], "timeout": 9}],
    )
    names = [[hook["run"] for hook in bound_to(config, event, auto)] for event, auto in CASES]
    assert names == [["own", "both", "on stop"], ["both", "on stop"], ["own", "both"], ["both"]]
    assert [hook["timeout"] for hook in bound_to(config, "stop", True)] == [7, 3600.0, 9]


CASES = [("stop", True), ("stop", False), ("down", True), ("preemption", False)]


def test_a_moment_of_this_boot_is_as_old_as_the_ticks_say_whatever_the_time_of_day_says():
    at = time.time() - 3600  # what a clock said that has been put forward since
    known = stamp(at, ago_s=5.0)
    assert 5 <= age_s(at, known) < 60
    assert age_s(at + 1, known) >= 3598, "another moment: only the wall clock knows"
    assert age_s(at, known.replace(procs.boot_id(), "another-boot")) >= 3599
    assert age_s(time.time() + 3600, None) == 0, "one of the future is not over yet"
