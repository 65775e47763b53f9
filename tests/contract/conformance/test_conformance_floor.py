"""What SkyPilot 0.14.1 makes of the same task files, ours does too: the counts reached may only rise.

The scripts and their expectations lie beside the checkout (`../shared/conformance`); without them there is nothing to
compare with. A count above its floor is a reason to raise `tests/conformance-floor.json`, never to leave it.
"""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from skyinfra.model.dag import Dag

ROOT = Path(__file__).parents[3]
SHARED = ROOT.parent / "shared"
FLOOR = json.loads((ROOT / "tests" / "conformance-floor.json").read_text())

pytestmark = pytest.mark.skipif(
    not (SHARED / "conformance").is_dir(), reason="the conformance set is not beside this checkout (../shared)"
)


@pytest.mark.parametrize("script", sorted(FLOOR))
def test_the_count_reached_is_not_below_the_floor(script: str, tmp_path: Path) -> None:
    if script == "check" and importlib.util.find_spec("jinja2") is None:
        pytest.skip("check.py fills its templates with jinja2, which is not installed")
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "PYTHONPATH": path, "SKYINFRA_HOME": str(tmp_path / "s"), "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, str(SHARED / "conformance" / f"{script}.py")],
        env=env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    reached = re.search(r"(\d+) of (\d+)", done.stdout)
    assert reached is not None, done.stderr
    assert int(reached[1]) >= FLOOR[script], done.stdout


def refused_probes() -> list[dict[str, str]]:
    source = SHARED / "api" / "parser-probes.json"
    probes = json.loads(source.read_text()) if source.exists() else []
    offline = {"ConnectionError", "NoCloudAccessError"}  # there, only for want of a catalog or an account
    return [p for p in probes if p["stage"] in ("parse", "validate") and p["outcome"] not in offline]


@pytest.mark.parametrize("probe", refused_probes(), ids=lambda p: p["name"])
def test_the_refusal_of_each_probe_names_file_line_and_column(
    probe: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KUBECONFIG", "/nonexistent")
    file = tmp_path / "task.yaml"
    file.write_text(probe["yaml"])
    with pytest.raises((ValueError, AssertionError)) as caught:
        Dag.from_yaml(file).validate()
    lines = str(caught.value).splitlines()
    assert lines
    assert all(re.match(rf"{re.escape(str(file))}:\d+:\d+: .", line) for line in lines)
