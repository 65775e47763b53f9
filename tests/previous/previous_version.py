"""Versions before this one, as ``scripts/record-release`` kept them under ``tests/fixtures/previous/<label>/``.

``package.tar.xz`` is the version's whole package, to run its client, server and agent for real; ``about.json`` says
which it is; ``requests.json`` holds what its client sent for each command. Golden specs lie in
``tests/unit/stacks/golden``.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["FIXTURES", "Previous", "recorded", "write_files"]

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures" / "previous"


@dataclass(frozen=True)
class Previous:
    """One recorded version."""

    folder: Path

    @property
    def about(self) -> dict[str, Any]:
        """`{label, version, commit, agent_version, api, agent_api}`."""
        return json.loads((self.folder / "about.json").read_text())

    @property
    def requests(self) -> dict[str, Any]:
        """`{files: {path: text}, commands: [{argv, code, sent: [{method, path, headers, body}]}]}`."""
        return json.loads((self.folder / "requests.json").read_text())

    def unpack(self, target: Path) -> Path:
        """The folder that belongs on PYTHONPATH to run this version."""
        with tarfile.open(self.folder / "package.tar.xz") as archive:
            archive.extractall(target, filter="data")
        return target


def recorded() -> list[Previous]:
    """All recorded versions, by label."""
    return [Previous(path.parent) for path in sorted(FIXTURES.glob("*/about.json"))]


def environment(env: Mapping[str, str], package: Path) -> dict[str, str]:
    """`env` for a process that is to be of the unpacked version. Its bytecode is kept: it is started many times."""
    kept = {name: value for name, value in env.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPATH": str(package)}


def write_files(root: Path, files: Mapping[str, str]) -> None:
    """What the recorded commands name: task files, a folder to send."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
