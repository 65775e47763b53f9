"""How values, progress and outcomes read."""

from __future__ import annotations

import io

import pytest

from skyinfra.cli import ask, out
from skyinfra.cli.job import outcome
from skyinfra.cli.painter import Painter
from skyinfra.cli.text import ago, duration, shortened, table


def test_times_are_said_as_people_say_them() -> None:
    assert [ago(at, 1_000_000.0) for at in (None, 999_999.5, 999_999.0, 999_940.0, 996_000.0, 700_000.0)] == [
        *("-", "just now", "1 sec ago", "1 min ago", "1 hr ago", "3 days ago")
    ]
    assert [duration(s) for s in (None, 0.4, 59, 61, 7300, 90000)] == ["-", "0s", "59s", "1m 1s", "2h 1m", "1d 1h"]


def test_a_table_is_aligned_and_has_no_trailing_blanks() -> None:
    assert table(["A", "LONG"], [["xxx", None], [1, "a\nb"]]) == "A    LONG\nxxx  -\n1    a b"
    assert shortened("abcdef", 4) == "abc…"


@pytest.mark.parametrize(
    ("row", "line"),
    [
        ({"job_id": 3, "state": "FAILED", "exit_codes": [3]}, "Job 3 FAILED (exit code 3)."),
        ({"job_id": 3, "state": "FAILED", "exit_codes": [-9]}, "Job 3 FAILED (killed by signal 9)."),
        ({"job_id": 3, "state": "FAILED", "exit_codes": [0, 137]}, "Job 3 FAILED (exit code 137 on rank 1)."),
        ({"job_id": 3, "state": "FAILED_SETUP", "exit_codes": [7]}, "Job 3 FAILED_SETUP (setup: exit code 7)."),
        ({"job_id": 3, "state": "CANCELLED", "exit_codes": [-15]}, "Job 3 CANCELLED."),
        ({"job_id": 3, "state": "FAILED_DRIVER", "reason": "node lost"}, "Job 3 FAILED_DRIVER (node lost)."),
    ],
)
def test_a_jobs_outcome_names_its_own_exit_code(row: dict[str, object], line: str) -> None:
    assert outcome(row) == line


def resource(state: str, op: str = "create", text: str = "") -> dict[str, object]:
    return {"kind": "resource", "urn": "u", "type": "skyinfra:index:Agent", "name": "c-0", "op": op, "state": state,
            "text": text}  # fmt: skip


def test_without_a_terminal_every_change_is_a_plain_line() -> None:
    screen, now = io.StringIO(), [100.0]
    with Painter(screen, lambda: now[0]) as painter:
        painter.show({"kind": "log", "text": "hello"})
        painter.show(resource("began", text="waits for the machine"))
        now[0] = 165.0
        painter.show(resource("done"))
        painter.show(resource("done", op="same"))
        painter.show(resource("began", op="delete"))
        painter.show(resource("failed", op="delete", text="it is gone"))
    assert screen.getvalue() == (
        "hello\n"
        "… agent c-0 making: waits for the machine\n"
        "✓ agent c-0 made (1m 5s)\n"
        "… agent c-0 removing\n"
        "✗ agent c-0 failed: it is gone (0s)\n"
    )


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_the_live_line_is_redrawn_and_gone_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    screen = Terminal()
    with Painter(screen, lambda: 0.0) as painter:
        painter.show(resource("began"))
        assert screen.getvalue() == "… agent c-0 making (0s)\n"
        painter.show({"kind": "log", "text": "hello"})
        assert screen.getvalue().endswith("\033[1A\033[Jhello\n… agent c-0 making (0s)\n")
    assert screen.getvalue().endswith("\033[1A\033[J")


def test_colour_needs_a_terminal_that_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert out.colour("x", "red", Terminal()) == "\033[31mx\033[0m"
    assert out.colour("x", "red", io.StringIO()) == "x"
    monkeypatch.setenv("NO_COLOR", "1")
    assert out.colour("x", "red", Terminal()) == "x"


def test_where_nobody_can_answer_making_goes_on_and_destroying_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert ask.confirm("Make it?") is True
    with pytest.raises(RuntimeError, match="Removing c"):
        ask.confirm_destroying("Removing c", "Proceed?")
