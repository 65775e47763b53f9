"""The command line of those who use Pulumi themselves, as they type it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess

import pytest

from skyinfra.stacks.engine import find_engine
from skyinfra.testing.world import World

pytestmark = [pytest.mark.engine, pytest.mark.timeout(180)]


def test_stack_env_lets_the_pulumi_command_see_the_stack_and_eject_writes_its_project(world: World) -> None:
    world.run("launch", "-y", "-c", "a.b", str(world.task("t", "echo hi")))
    lines = world.run("stack", "env", "a.b").stdout
    assert "export PULUMI_STACK=organization/skyinfra/a-b-" in lines
    assert set(world.json("stack", "env", "a.b")) >= {"PULUMI_HOME", "PULUMI_BACKEND_URL", "PULUMI_STACK"}

    def pulumi(*words: str) -> str:
        script = f'{lines}\nexec "$0" "$@"'
        argv = ["sh", "-c", script, str(find_engine()), *words]
        env = {"PATH": os.environ["PATH"], "HOME": str(world.root)}
        done = subprocess.run(argv, env=env, cwd=world.root, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    kept = json.loads(pulumi("stack", "export"))["deployment"]["resources"]
    assert "skyinfra:local:Machine" in {one["type"] for one in kept}
    assert [one["kind"] for one in json.loads(pulumi("stack", "history", "--json"))] == ["update"]
    assert json.loads(pulumi("stack", "output", "--json"))["nodes"][0]["slot"] == 0

    where = world.run("eject", "a.b", "-f", "mine").stdout.strip()
    names = set(os.listdir(where))
    assert names >= {"Pulumi.yaml", "__main__.py", "env.sh", "requirements.txt", "README.md"}
    assert "already" in world.run("eject", "a.b", "-f", "mine", check=1).stderr
    assert "does not exist" in world.run("eject", "nope", check=1).stderr
    assert "does not exist" in world.run("stack", "env", "nope", check=1).stderr
    world.run("down", "-y", "a.b")


def test_an_ejected_project_previews_without_changes_by_itself(world: World) -> None:
    if shutil.which("pulumi-language-python") is None:
        pytest.skip("no Pulumi language host for Python here: programs run inline, see tests/contract/stacks")
    world.run("launch", "-y", "-c", "c", str(world.task("t", "echo hi")))
    where = world.run("eject", "c", "-f", "mine").stdout.strip()
    script = '. ./env.sh; exec "$0" preview --expect-no-changes --non-interactive'
    done = subprocess.run(["sh", "-c", script, str(find_engine())], cwd=where, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_setting_that_cannot_be_honoured_is_one_line(world: World) -> None:
    (world.home.root / "stacks.yaml").write_text("backend_url: gs://bucket\n")
    said = world.run("launch", "-y", "-c", "c", str(world.task("t", "echo hi")), check=1).stderr
    assert "must be file:///FOLDER, postgres://" in said
    assert "Traceback" not in said
    (world.home.root / "stacks.yaml").unlink()
    world.run("down", "-y", "c")
    assert world.json("status") == []
