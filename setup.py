"""Everything is in pyproject.toml, but that a build records the commit it was made from: `skyinfra/COMMIT`."""

import subprocess
from pathlib import Path
from typing import Any

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

_HERE = Path(__file__).resolve().parent


def record(package: Path) -> None:
    """Write the commit of this checkout; what an sdist recorded stays. Nothing where neither is known."""
    if not (_HERE / ".git").exists():
        return
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=_HERE, capture_output=True, text=True)
    if done.returncode == 0:
        (package / "COMMIT").write_text(done.stdout)


class BuildPy(build_py):
    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            record(Path(self.build_lib) / "skyinfra")


class Sdist(sdist):
    def make_release_tree(self, base_dir: str, files: Any) -> None:
        super().make_release_tree(base_dir, files)
        record(Path(base_dir) / "skyinfra")


setup(cmdclass={"build_py": BuildPy, "sdist": Sdist})
