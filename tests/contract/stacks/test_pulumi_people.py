"""Clusters in the hands of people who use Pulumi themselves: ejected, as a project of files, inside their programs."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pulumi import automation as auto

from skyinfra.stacks import project
from skyinfra.stacks.backend import FileBackend
from skyinfra.stacks.clouds.local.observe import observe
from skyinfra.stacks.engine import find_engine
from skyinfra.stacks.workspace import user_env

pytestmark = [pytest.mark.engine, pytest.mark.timeout(240)]

ROOT = Path(__file__).resolve().parents[3]


def theirs(home: Path, **more: str) -> dict[str, str]:
    """A user's environment: their own Pulumi home and passphrase; our plugin is found on the PATH."""
    plugin_dir = Path(sys.executable).parent
    if not (plugin_dir / "pulumi-resource-skyinfra").exists():
        pytest.skip("skyinfra is not installed with its scripts here")
    (home / "their-states").mkdir()
    return {
        "PATH": f"{plugin_dir}{os.pathsep}{os.environ['PATH']}",
        "PULUMI_HOME": str(home / "their-pulumi"),
        "PULUMI_BACKEND_URL": f"file://{home / 'their-states'}",
        "PULUMI_CONFIG_PASSPHRASE": "theirs",
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
        **more,
    }


def command() -> auto.PulumiCommand:
    engine = find_engine()
    assert engine is not None
    root = engine.parent.parent if engine.parent.name == "bin" else None
    return auto.PulumiCommand(str(root) if root else None, skip_version_check=True)


def test_an_ejected_cluster_previews_without_changes_and_can_be_changed_from_there(cluster, tmp_path) -> None:
    assert cluster.up().outcome == "succeeded"
    state = FileBackend(cluster.home.backend).load(cluster.spec.stack)
    folder = tmp_path / "ejected"
    folder.mkdir()
    env = {**user_env(cluster.home), "PULUMI_STACK": f"organization/skyinfra/{cluster.spec.stack}"}
    for name, text in project.files("c", cluster.spec, state.secrets_provider, env).items():
        (folder / name).write_text(text)

    sourced = subprocess.run(
        ["sh", "-c", '. ./env.sh; "$0" stack history --json', find_engine()], cwd=folder, capture_output=True, text=True
    )
    assert [one["kind"] for one in json.loads(sourced.stdout)] == ["update"], sourced.stderr

    program = runpy.run_path(str(folder / "__main__.py"), run_name="ejected")["main"]
    workspace = auto.LocalWorkspace(
        str(folder), program=program, env_vars=user_env(cluster.home), pulumi_command=command()
    )
    stack = auto.Stack.select(cluster.spec.stack, workspace)
    assert set(stack.preview().change_summary) == {"same"}

    settings = folder / f"Pulumi.{cluster.spec.stack}.yaml"
    settings.write_text(settings.read_text().replace('\\"cpus\\": 1.0', '\\"cpus\\": 2.0'))
    planned = stack.preview().change_summary
    assert planned[auto.OpType.UPDATE] == 1
    stack.up()
    assert json.loads((cluster.home.nodes / cluster.machine / "machine.json").read_text())["cpus"] == 2.0
    assert cluster.run("destroy").outcome == "succeeded"


def test_the_project_at_the_root_has_its_program_and_stack_settings_in_stacks(cluster, tmp_path) -> None:
    """Project and settings are read from the files; the program's function runs inline."""
    folder = tmp_path / "project"
    folder.mkdir()
    shutil.copy(ROOT / "Pulumi.yaml", folder)
    shutil.copytree(ROOT / "stacks", folder / "stacks", ignore=shutil.ignore_patterns("__pycache__"))
    assert (folder / "stacks" / "__main__.py").read_text() == project.PROGRAM

    env = theirs(tmp_path, SKYINFRA_HOME=str(cluster.home.root))
    program = runpy.run_path(str(folder / "stacks" / "__main__.py"), run_name="inline")["main"]
    workspace = auto.LocalWorkspace(str(folder), program=program, env_vars=env, pulumi_command=command())
    settings = workspace.project_settings()
    assert (settings.name, settings.main) == ("skyinfra", "stacks/")
    stack = auto.Stack.create("example", workspace)
    assert "encryptionsalt" in (folder / "stacks" / "Pulumi.example.yaml").read_text()
    assert json.loads(stack.get_config("skyinfra:cluster").value)["name"] == "example"
    assert stack.preview().change_summary == {auto.OpType.CREATE: 4}
    made = stack.up()
    assert made.outputs["nodes"].value[0]["id"] == "example-0-0"
    assert [(seen["id"], seen["agent"]) for seen in observe(cluster.home)] == [("example-0-0", "alive")]
    stack.destroy()
    assert observe(cluster.home) == []


def test_a_cluster_is_a_component_of_somebody_elses_program(cluster, tmp_path) -> None:
    example = ROOT / "examples" / "pulumi-program"
    program = runpy.run_path(str(example / "__main__.py"), run_name="inline")["main"]
    folder = tmp_path / "work"
    folder.mkdir()
    shutil.copy(example / "Pulumi.yaml", folder)
    env = theirs(tmp_path, SKYINFRA_HOME=str(cluster.home.root))
    workspace = auto.LocalWorkspace(str(folder), program=program, env_vars=env, pulumi_command=command())
    stack = auto.Stack.create("dev", workspace)
    made = stack.up()
    assert len(set(made.outputs["addresses"].value)) == 2
    assert [(seen["id"], seen["agent"]) for seen in observe(cluster.home)] == [
        ("dev-trial-0-0", "alive"),
        ("dev-trial-1-0", "alive"),
    ]
    assert stack.preview().change_summary == {auto.OpType.SAME: 7}
    stack.destroy()
    assert observe(cluster.home) == []
