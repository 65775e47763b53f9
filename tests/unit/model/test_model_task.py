"""Tasks: YAML in and out, variables, files, checks."""

import copy
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from skyinfra.model.dag import Dag
from skyinfra.model.exceptions import (
    InvalidSkyPilotConfigError,
    StorageModeError,
    StorageNameError,
    StorageSourceError,
    StorageSpecError,
)
from skyinfra.model.resources import Resources
from skyinfra.model.schema import task_json_schema
from skyinfra.model.storage import Storage, StorageMode, StoreType
from skyinfra.model.task import Task


def test_overrides_come_before_anything_is_built() -> None:
    config = {"envs": {"A": None, "B": 1}, "workdir": "$A/x", "file_mounts": {"/${B}": {"name": "${A}-b"}}}
    before = copy.deepcopy(config)
    task = Task.from_yaml_config(config, env_overrides=[("A", "y")])
    assert task.envs == {"A": "y", "B": "1"}
    assert task.workdir == "y/x"
    assert task.storage_mounts["/1"].name == "y-b"
    assert config == before


def test_unknown_variables_stay_and_scripts_are_not_touched() -> None:
    task = Task.from_yaml_config({"envs": {"A": "x"}, "workdir": "$NOPE/$A", "run": "echo $A", "setup": "${A}"})
    assert (task.workdir, task.run, task.setup) == ("$NOPE/x", "echo $A", "${A}")


def test_an_env_without_a_value_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="--env TOKEN"):
        Task.from_yaml_config({"envs": {"TOKEN": None}})


def test_values_of_variables_become_text() -> None:
    assert Task.from_yaml_config({"envs": {"A": True, "B": 1.5, "C": 3}}).envs == {"A": "True", "B": "1.5", "C": "3"}
    assert Task().update_envs([("A", 1)]).envs == {"A": "1"}
    with pytest.raises(ValueError, match="not a variable's name"):
        Task(envs={"1A": "x"})


@pytest.mark.parametrize("value", ["a\0b", "\udcff"])
def test_values_that_no_environment_can_hold_are_refused(value: str) -> None:
    with pytest.raises(ValueError, match="the variable A holds"):
        Task.from_yaml_config({"run": "x"}, env_overrides=[("A", value)])


def test_a_script_that_is_no_text_is_refused() -> None:
    with pytest.raises(ValueError, match="run holds bytes"):
        Task(run="echo \udcff")


def test_keys_of_mounts_must_be_text(tmp_path: Path) -> None:
    file = tmp_path / "t.yaml"
    file.write_text("file_mounts:\n  1: ./a\n")
    with pytest.raises(InvalidSkyPilotConfigError, match=rf"^{file}:2:3: the key 1 must be text: quote it"):
        Task.from_yaml(file)


def test_dates_in_free_form_sections_become_text() -> None:
    task = Task.from_yaml_str("config: {kubernetes: {pod_config: {a: 2024-01-01, 1: x}}}")
    (resources,) = task.resources
    assert resources.cluster_config_overrides == {"kubernetes": {"pod_config": {"a": "2024-01-01", "1": "x"}}}
    with pytest.raises(ValueError, match="binary"):
        Task.from_yaml_str("config: {a: !!binary aGk=}")


def test_secrets_print_nothing_and_win_over_envs() -> None:
    task = Task(envs={"A": "e"}, secrets={"A": "canary"})
    assert "canary" not in f"{task!r} {task.secrets}"
    assert task.envs_and_secrets == {"A": "canary"}
    assert task.to_yaml_config()["secrets"] == {"A": "canary"}
    assert "canary" not in str(task.to_yaml_config(use_user_specified_yaml=True))


@pytest.mark.parametrize(
    ("given", "refs", "literals", "written"),
    [
        ({"A": None}, ["secrets:A"], {}, ["secrets:A"]),
        (["secrets:A", "secrets:global/B"], ["secrets:A", "secrets:global/B"], {}, ["secrets:A", "secrets:global/B"]),
        ({"A": None, "B": "x"}, ["secrets:A"], {"B": "x"}, {"B": "x", "A": None}),
        ({"A": ""}, [], {"A": ""}, {"A": ""}),
    ],
)
def test_secrets_without_a_value_are_references(given: Any, refs: list, literals: dict, written: Any) -> None:
    task = Task.from_yaml_config({"secrets": given})
    assert task.managed_secret_refs == refs
    assert task.secret_values == literals
    assert task.to_yaml_config()["secrets"] == written


def test_a_given_secret_replaces_its_reference() -> None:
    for written in ({"A": None, "B": None}, ["secrets:A", "secrets:B"]):
        task = Task.from_yaml_config({"secrets": written}, secrets_overrides=[("A", "x")])
        assert task.secret_values == {"A": "x"}
        assert task.managed_secret_refs == ["secrets:B"]


@pytest.mark.parametrize(
    "config",
    [
        {"envs": {"SKYPILOT_DOCKER_USERNAME": "a"}},
        {"secrets": {"SKYPILOT_DOCKER_PASSWORD": "a", "SKYPILOT_DOCKER_SERVER": "b"}},
        {
            "envs": {"SKYPILOT_DOCKER_USERNAME": "a", "SKYPILOT_DOCKER_SERVER": "s"},
            "secrets": {"SKYPILOT_DOCKER_PASSWORD": "b"},
        },
    ],
)
def test_registry_credentials_come_whole_and_from_one_place(config: dict) -> None:
    with pytest.raises(ValueError, match=r"SKYPILOT_DOCKER_(USERNAME|SERVER)"):
        Task.from_yaml_config(config)


def test_scripts_may_be_lists_in_code_but_not_in_yaml() -> None:
    assert Task(run=["a", "b"]).run == "a\nb"
    with pytest.raises(InvalidSkyPilotConfigError, match="run: expected text, found a list"):
        Task.from_yaml_config({"run": ["a"]})
    with pytest.raises(ValueError, match="must be a script"):
        Task(run=lambda rank, ips: "x")  # type: ignore[arg-type]


@pytest.mark.parametrize("nodes", [0, -1, True, 1.5])
def test_num_nodes_is_a_whole_number_above_zero(nodes: Any) -> None:
    with pytest.raises(ValueError, match="num_nodes"):
        Task(num_nodes=nodes)


def test_what_is_no_map_is_no_task() -> None:
    for value in ("echo hi", ["a"], 5):
        with pytest.raises(InvalidSkyPilotConfigError, match="a task is a map"):
            Task.from_yaml_config(value)  # type: ignore[arg-type]


def test_an_error_names_file_line_column_key_and_what_was_meant(tmp_path: Path) -> None:
    file = tmp_path / "t.yaml"
    file.write_text("name: x\nresorces:\n  cpus: 4\nresources:\n  any_of:\n    - cpu: 1\nrun: [a]\n")
    with pytest.raises(InvalidSkyPilotConfigError) as caught:
        Task.from_yaml(file)
    assert str(caught.value).splitlines() == [
        f"{file}:2:1: unknown key 'resorces' in task; did you mean 'resources'?",
        f"{file}:6:7: resources.any_of[0]: unknown key 'cpu' in a resources alternative; did you mean 'cpus'?",
        f"{file}:7:6: run: expected text, found a list",
    ]


def test_a_bad_value_names_its_place_too(tmp_path: Path) -> None:
    file = tmp_path / "t.yaml"
    file.write_text("resources:\n  cpus: 2\n  any_of:\n    - infra: aws\n    - cpus: -1\n")
    with pytest.raises(ValueError, match=rf"^{file}:5:13: cpus '-1' must be more than 0$"):
        Task.from_yaml(file)
    file.write_text("resources:\n  cpus: -2\n  any_of:\n    - infra: aws\n")
    with pytest.raises(ValueError, match=rf"^{file}:2:9: "):
        Task.from_yaml(file)


def test_validate_names_the_place_even_after_a_deep_copy(tmp_path: Path) -> None:
    file = tmp_path / "t.yaml"
    file.write_text("name: x\nworkdir: ./nope\n")
    task = copy.deepcopy(Task.from_yaml(file))
    with pytest.raises(ValueError, match=rf"^{file}:2:10: workdir './nope' does not exist"):
        task.validate()
    with pytest.raises(ValueError, match=r"^workdir './other' does not exist"):
        task.update_workdir("./other", None, None).validate()
    pickle.loads(pickle.dumps(task))


# --- files ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mounts", "says"),
    [
        ({"/a": "./nope"}, "does not exist"),
        ({"/a/": "."}, "may not end in /"),
        ({"/a": "s3://b/"}, "may not end in /"),
        ({"s3://b": "."}, "is a bucket"),
        ({"~/sky_workdir": "."}, "where the workdir goes"),
    ],
)
def test_mounts_that_cannot_be(mounts: dict, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    task = Task.from_yaml_config({"file_mounts": mounts, "workdir": "."})
    task.validate(skip_file_mounts=True)
    with pytest.raises(ValueError, match=says):
        task.validate()


def test_validate_makes_local_paths_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "f").write_text("x")
    task = Task(workdir=".", file_mounts={"/f": "~/f", "/b": "s3://b/k"})
    task.validate()
    assert task.workdir == str(tmp_path)
    assert task.file_mounts == {"/f": str(tmp_path / "f"), "/b": "s3://b/k"}
    assert task.get_local_to_remote_file_mounts() == {"/f": str(tmp_path / "f")}
    assert task.get_cloud_to_remote_file_mounts() == {"/b": "s3://b/k"}


@pytest.mark.parametrize("name", ["a b", "-a", "a..-b", "a/b", ""])
def test_task_names_are_checked_at_validate(name: str) -> None:
    task = Task.from_yaml_config({"name": name})
    with pytest.raises(ValueError, match="task name"):
        task.validate()


def test_autostop_must_agree_over_alternatives() -> None:
    task = Task(resources={Resources(autostop=5), Resources(autostop=6)})
    with pytest.raises(ValueError, match="autostop must be the same"):
        task.validate()


@pytest.mark.parametrize(
    ("storage", "error"),
    [
        (Storage(), StorageSpecError),
        (Storage(name="b", mode=StorageMode.COPY), StorageSourceError),
        (Storage(source="."), StorageNameError),
        (Storage(name="b", source="s3://x"), StorageSpecError),
        (Storage(source="s3://x/y"), StorageModeError),
        (Storage(name="b", source="./nope"), StorageSourceError),
        (Storage(name="b", source="./"), StorageSourceError),
        (Storage(name="b", source="f"), StorageSourceError),
        (Storage(name="b", source=["f", "d/f"]), StorageSourceError),
        (Storage(name="s3://b"), StorageNameError),
    ],
)
def test_storage_that_cannot_be(
    storage: Storage, error: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "f").write_text("x")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "f").write_text("x")
    task = Task(storage_mounts={"/a": storage})
    with pytest.raises(error) as caught:
        task.construct_storage_mounts()
    assert type(caught.value) is error


def test_storage_that_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d").mkdir()
    for storage in (Storage("b"), Storage("b", "d"), Storage("b", ["d"]), Storage(source="gs://x")):
        storage.construct()
    assert StoreType.from_uri("gs://x") is StoreType.GCS
    assert StoreType.from_uri("https://a.blob.core.windows.net/c") is StoreType.AZURE


def test_mounted_buckets_need_fuse_and_copied_ones_do_not() -> None:
    mounted = Task.from_yaml_config({"file_mounts": {"/a": {"name": "b"}}})
    copied = Task.from_yaml_config({"file_mounts": {"/a": {"name": "b", "mode": "copy"}}})
    assert all(r.requires_fuse for r in mounted.resources)
    assert not any(r.requires_fuse for r in copied.resources)


@pytest.mark.parametrize(
    ("current", "flags", "after"),
    [
        ("a", ("b", None, None), "b"),
        ("a", (None, "u", None), {"url": "u"}),
        ({"url": "u", "ref": "r"}, (None, None, "s"), {"url": "u", "ref": "s"}),
        ({"url": "u", "ref": "r"}, (None, "v", None), {"url": "v", "ref": "r"}),
        ("a", (None, None, None), "a"),
    ],
)
def test_workdir_flags(current: Any, flags: tuple, after: Any) -> None:
    assert Task(workdir=current).update_workdir(*flags).workdir == after


def test_workdir_flags_that_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="exclude"):
        Task().update_workdir("a", "u", None)
    with pytest.raises(ValueError, match="needs a git workdir"):
        Task(workdir="a").update_workdir(None, None, "r")


def test_a_git_workdir_adds_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_TOKEN", "canary")
    task = Task(workdir={"url": "https://g/x.git", "ref": "main"}).update_envs_and_secrets_from_workdir()
    assert task.envs == {"GIT_URL": "https://g/x.git", "GIT_BRANCH": "main"}
    assert task.secret_values == {"GIT_TOKEN": "canary"}


@pytest.mark.parametrize("volume", [{}, {"sub_path": "a"}, {"name": "v", "sub_path": "../x"}, None, ""])
def test_volumes_that_name_nothing(volume: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        Task(volumes={"/a": volume})


# --- round trips -----------------------------------------------------------------------------------------------------

_name = st.from_regex(r"[a-z][a-z0-9]{0,8}", fullmatch=True)
_env_text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=5)
_accelerators = st.one_of(
    st.sampled_from(["A100:8", "a10g", "T4:0.5", "tpu-v6e-8", "made-up:2", "NVIDIA:80GB"]),
    st.sampled_from([{"A100": 8, "V100": 4}, {"L4": None}, ["A100:8", "V100"]]),
)
_one = st.fixed_dictionaries(
    {},
    optional={
        "cpus": st.sampled_from([1, 2.5, "4+"]),
        "memory": st.sampled_from([8, "16+", "2GB", "4x"]),
        "use_spot": st.booleans(),
        "disk_size": st.sampled_from([100, 256, "1TB"]),
        "disk_tier": st.sampled_from(["LOW", "best"]),
        "network_tier": st.sampled_from(["best", "standard"]),
        "local_disk": st.sampled_from(["nvme", "ssd:100+"]),
        "ports": st.sampled_from([80, "80-90", [80, "443"], "80,81"]),
        "labels": st.dictionaries(_name, _name, min_size=1, max_size=2),
        "image_id": st.sampled_from(["docker:ubuntu", {"docker": "x"}]),
        "autostop": st.sampled_from([True, False, 5, "2h", -1, {"idle_minutes": 3, "down": True, "wait_for": "none"}]),
        "job_recovery": st.sampled_from(["failover", "none", {"max_restarts_on_errors": 2}]),
        "priority": st.integers(-1000, 1000),
        "max_hourly_cost": st.floats(0.1, 100),
    },
)
_resources = st.builds(
    lambda base, more: {**base, **more},
    _one,
    st.one_of(
        st.just({}),
        st.fixed_dictionaries({"accelerators": _accelerators}),
        st.fixed_dictionaries({"infra": st.sampled_from(["aws", "gcp/us-east1", "*/r", "k8s/a/b", "local"])}),
        st.fixed_dictionaries({"any_of": st.lists(_one, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"ordered": st.lists(_one, min_size=1, max_size=3)}),
    ),
)
_service = st.sampled_from(
    [
        {"service": {"readiness_probe": "/h", "replicas": 2}},
        {
            "service": {
                "readiness_probe": {"path": "/", "post_data": '{"a": 1}', "headers": {"k": "v"}},
                "replica_policy": {"min_replicas": 1, "max_replicas": 3, "target_qps_per_replica": 2},
                "ports": 80,
                "tls": {"keyfile": "k", "certfile": "c"},
                "load_balancer": {"stream_timeout_seconds": 5},
            }
        },
        {"pool": {"workers": 3}},
        {"pool": {"min_workers": 1, "max_workers": 3, "queue_length_threshold": 2}},
        {},
    ]
)
_task = st.builds(
    lambda base, service: {**base, **service},
    st.fixed_dictionaries(
        {},
        optional={
            "name": _name,
            "num_nodes": st.integers(1, 9),
            "run": st.text(max_size=20),
            "setup": st.text(max_size=20),
            "workdir": st.sampled_from([".", {"url": "u", "ref": "r"}]),
            "envs": st.dictionaries(_name, st.one_of(st.booleans(), st.integers(), _env_text), max_size=3),
            "secrets": st.one_of(
                st.dictionaries(_name, st.one_of(st.none(), _name), max_size=3), st.just(["secrets:A"])
            ),
            "file_mounts": st.dictionaries(
                _name,
                st.sampled_from(["./a", "s3://b", {"name": "b", "store": "gcs"}, {"source": ["x"], "mode": "copy"}]),
                max_size=2,
            ),
            "volumes": st.dictionaries(_name, st.sampled_from(["v", {"size": "1Gi"}, {"name": "v"}]), max_size=2),
            "resources": st.one_of(st.none(), _resources),
            "config": st.sampled_from([{"docker": {"run_options": ["-v"]}}, {"hooks": [{"run": "x"}]}]),
            "inputs": st.just({"s3://a": 10}),
            "api_server_access": st.booleans(),
            "event_callback": st.just("echo"),
        },
    ),
    _service,
)


@given(_task)
@settings(max_examples=150, deadline=None)
def test_parse_dump_parse_is_a_fixed_point(config: dict) -> None:
    task = Task.from_yaml_config(config)
    once = task.to_yaml_config()
    assert Task.from_yaml_str(yaml.safe_dump(once)).to_yaml_config() == once
    assert Task.from_yaml_config(json.loads(json.dumps(once))).to_yaml_config() == once  # as it crosses the wire
    assert copy.deepcopy(task).to_yaml_config() == once


_junk = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "x", "A100:1", "/a", "s3://b", "10m", "$A"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.integers(0, 1) | st.none(), inner, max_size=2)
        | st.dictionaries(st.sampled_from(["infra", "cpus", "name", "path", "any_of", "run", "A", "/a"]), inner)
    ),
    max_leaves=8,
)


def refusal_of(read: Callable[[], object]) -> Exception | None:
    """The refusal, None for acceptance; anything else that is raised is a defect and passes through."""
    try:
        read()
    except (ValueError, AssertionError) as exc:
        return exc
    return None


@given(st.dictionaries(st.sampled_from([*task_json_schema()["properties"], "junk"]), _junk, max_size=4))
@settings(max_examples=300, deadline=None)
def test_any_map_is_a_task_or_refused(config: dict) -> None:
    def read_and_use() -> None:
        task = Task.from_yaml_config(config)
        json.dumps(task.to_yaml_config())
        task.validate()

    refusal = refusal_of(read_and_use)
    assert refusal is None or str(refusal)


@given(st.text(alphabet="runamecpsgo:[]{}\n -1&*#'", max_size=120))
@settings(max_examples=200, deadline=None)
def test_any_text_is_a_dag_or_refused(text: str) -> None:
    refusal = refusal_of(lambda: Dag.from_yaml_str(text))
    assert refusal is None or str(refusal)
