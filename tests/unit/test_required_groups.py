"""A run that skipped what it must not skip fails, and says what."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(tmp_path: Path, test: str, groups: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text())
    (tmp_path / "required-groups.txt").write_text(groups)
    (tmp_path / "test_group.py").write_text(f"import pytest\n\n{test}")
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--require-groups", str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )


def test_a_skipped_group_fails_the_run(tmp_path):
    done = run(tmp_path, "def test_it():\n    pytest.skip('no PostgreSQL')\n", "test_group.py\n")
    assert done.returncode == 100
    assert "required group missed: test_group.py: 1 skipped, for example test_group.py::test_it" in done.stdout


def test_a_group_of_which_nothing_ran_fails_the_run(tmp_path):
    done = run(tmp_path, "def test_it():\n    pass\n", "# comment\ntest_group.py\ntest_other.py\n")
    assert done.returncode == 100
    assert "required group missed: test_other.py: no test of it ran" in done.stdout


def test_a_run_that_skipped_nothing_required_passes(tmp_path):
    done = run(tmp_path, "def test_it():\n    pass\n", "test_group.py\n")
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_required_group_exists():
    lines = (ROOT / "tests" / "required-groups.txt").read_text().splitlines()
    assert all((ROOT / line).exists() for line in lines if line and not line.startswith("#"))
