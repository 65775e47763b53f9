from __future__ import annotations

from pathlib import Path

import pytest

from skyinfra.model.home import Home
from skyinfra.model.spec import ClusterSpec, Slot


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    return Home(tmp_path / "home")


@pytest.fixture
def spec() -> ClusterSpec:
    return ClusterSpec("server", "default", "me", "c", "c-abcdef", "local", (Slot(0),), agent_version="1")
