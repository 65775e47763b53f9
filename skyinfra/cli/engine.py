"""`skyinfra engine`: hands over to ``python -m skyinfra.stacks.engine``, which knows the Pulumi engine."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from skyinfra.model.home import Home

__all__ = ["run"]


def run(words: Sequence[str]) -> NoReturn:
    """Become that program: its output, its exit code."""
    env = {**os.environ, "SKYINFRA_HOME": str(Home.from_env().root)}
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, "-m", "skyinfra.stacks.engine", *words], env)
