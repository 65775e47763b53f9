"""The screens of stop, start and autostop, and what each asks of the server."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture
def sent(server: Any, make: Any) -> Any:
    server.clusters = [make.cluster("a"), make.cluster("b", "STOPPED")]

    def of(verb: str) -> list[dict[str, Any]]:
        return [r.body for r in server.requests.values() if r.verb == verb]

    return of


@pytest.mark.parametrize("verb", ["stop", "start", "autostop", "down"])
def test_an_unknown_cluster_is_text_and_no_failure(sent: Any, sky: Any, verb: str) -> None:
    screen = sky(verb, "-y", "nope")
    assert (screen.code, screen.stdout, screen.stderr) == (0, "", "Cluster(s) not found: nope.\n")
    assert sent(verb) == []


@pytest.mark.parametrize("verb", ["stop", "start", "autostop", "down"])
def test_no_name_at_all_is_a_usage_error(sent: Any, sky: Any, verb: str) -> None:
    screen = sky(verb, "-y")
    assert (screen.code, screen.stderr) == (2, "error: name the clusters, or use --all\n")


def test_stop_ends_what_runs_so_it_is_not_done_unasked(sent: Any, sky: Any) -> None:
    screen = sky("stop", "a")
    assert screen.code == 1
    assert screen.stderr.splitlines() == [
        "error: Stopping 1 cluster: a: not done without a confirmation",
        "hint: add -y to confirm",
    ]
    assert sky("stop", "-y", "a", "--graceful", "--graceful-timeout", "9").code == 0
    (body,) = sent("stop")
    assert (body["cluster_name"], body["graceful"], body["graceful_timeout"]) == ("a", True, 9)


def test_start_takes_what_is_not_up_and_with_force_what_is(sent: Any, sky: Any) -> None:
    screen = sky("start", "-y", "a", "b", "-i", "7", "--down", "-r", "--wait-for", "jobs")
    assert "Cluster a is up already." in screen.stderr
    (body,) = sent("start")
    wanted = {"cluster_name": "b", "idle_minutes_to_autostop": 7, "down": True, "retry_until_up": True}
    assert wanted.items() <= body.items()
    assert (body["wait_for"], body["force"]) == ("jobs", False)
    assert sky("start", "-y", "-f", "a").code == 0
    assert sent("start")[-1]["force"] is True


def test_autostop_says_what_was_set(sent: Any, sky: Any) -> None:
    screen = sky("autostop", "-y", "a")
    assert screen.stderr.splitlines()[-1] == "a: to be stopped after 5 idle minutes."
    screen = sky("autostop", "-y", "a", "-i", "10", "--down")
    assert screen.stderr.splitlines()[-1] == "a: to be removed after 10 idle minutes."
    screen = sky("autostop", "-y", "-a", "--cancel")
    assert screen.stderr.splitlines()[-1] == "a, b: autostop called off."
    assert [(b["cluster_name"], b["idle_minutes"], b["down"]) for b in sent("autostop")] == [
        ("a", 5, False),
        ("a", 10, True),
        ("a", -1, False),
        ("b", -1, False),
    ]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("autostop", "a", "--cancel", "-i", "5"), "--cancel and --idle-minutes exclude each other"),
        (("autostop", "a", "--wait-for", "ever"), "--wait-for must be one of jobs_and_ssh, jobs, none, not 'ever'"),
        (("start", "b", "--down"), "--down needs --idle-minutes-to-autostop"),
        (("start", "b", "--wait-for", "x"), "--wait-for must be one of jobs_and_ssh, jobs, none, not 'x'"),
    ],
)
def test_options_that_do_not_go_together_are_usage_errors(sent: Any, sky: Any, argv: Any, message: str) -> None:
    screen = sky(*argv, "-y")
    assert (screen.code, screen.stderr) == (2, f"error: {message}\n")


def test_async_hands_in_and_returns(sent: Any, sky: Any) -> None:
    screen = sky("stop", "-y", "--async", "a")
    assert screen.code == 0
    assert "was handed in to stop a." in screen.stderr
