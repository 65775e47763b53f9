"""The reference of the command line is current, and nothing in it is left unexplained."""

from __future__ import annotations

from pathlib import Path

from skyinfra.cli import main, reference

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "cli.md"


def test_the_reference_is_current() -> None:
    assert PAGE.read_text() == reference.page(), "run: python -m skyinfra.cli.reference docs"


def test_every_command_is_in_the_reference() -> None:
    assert {entry.name.split()[0] for entry in reference.entries()} == set(main.COMMANDS)


def test_every_command_and_every_parameter_is_explained() -> None:
    found = list(reference.entries())
    unexplained = [entry.name for entry in found if not entry.about]
    unexplained += [f"{entry.name} {one.written}" for entry in found for one in entry.parameters if not one.help]
    assert unexplained == []
