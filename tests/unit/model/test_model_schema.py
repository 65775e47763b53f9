"""The published schema is a JSON Schema, and agrees with what validates."""

import jsonschema
import pytest

from skyinfra.model.schema import TASK, task_json_schema
from skyinfra.model.schema_check import check

TASKS = [
    {},
    {"run": "x", "resources": {"infra": "aws", "accelerators": {"A100": 8, "L4": None}, "ports": [80, "90-92"]}},
    {"file_mounts": {"/a": "b", "/c": {"name": "n", "mode": "COPY", "store": "S3"}}, "secrets": ["secrets:A"]},
    {"service": {"readiness_probe": {"path": "/"}, "replicas": 1}, "config": {"hooks": [{"run": "x"}]}},
    {"resources": {"any_of": [{"image_id": None}], "autostop": {"idle_minutes": 1}, "job_recovery": None}},
]
NOT_TASKS = [
    {"foo": 1},
    {"run": ["x"]},
    {"num_nodes": "2"},
    {"envs": {"1A": "x"}},
    {"resources": {"priority": 1001}},
    {"resources": {"autostop": "soon"}},
    {"resources": {"any_of": [{"any_of": []}]}},
    {"workdir": {"ref": "x"}},
    {"config": {"hooks": [{"run": ""}]}},
    {"service": {"tls": {"keyfile": "x"}}},
]


def test_it_is_a_json_schema_without_internal_words() -> None:
    schema = task_json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    text = str(schema)
    assert not any(word in text for word in ("anyCase", "'expected'", "_requires_fuse", "_metadata"))
    assert "hooks" not in schema["properties"]["resources"]["properties"]


@pytest.mark.parametrize("config", TASKS)
def test_both_accept(config: dict) -> None:
    assert list(check(config, TASK)) == []
    jsonschema.validate(config, task_json_schema())


@pytest.mark.parametrize("config", NOT_TASKS)
def test_both_refuse(config: dict) -> None:
    assert list(check(config, TASK))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(config, task_json_schema())


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"name": 5}, "name: expected text, found a whole number (5)"),
        ({"resources": {"cpus": [1]}}, "resources.cpus: expected text or a number, found a list"),
        ({"resources": {"use_spot": "true"}}, "resources.use_spot: expected true or false, found text ('true')"),
        ({"resources": {"disk_tier": True}}, "resources.disk_tier: expected text, found true or false (True)"),
        ({"resources": {"cloud": "aw"}}, "resources.cloud: 'aw' is not a cloud; did you mean 'aws'?"),
        ({"resources": {"priority": 2000}}, "resources.priority: 2000 is out of range: from -1000 to 1000 is allowed"),
        ({"file_mounts": {"/a": {"mode": "MUONT"}}}, "file_mounts./a.mode: 'MUONT' is not allowed here; did you mean"),
        ({"num_noeds": 2}, "unknown key 'num_noeds' in task; did you mean 'num_nodes'?"),
        ({"config": {"hooks": [{"run": "x", "timeout": 0}]}}, "config.hooks[0].timeout: 0 is out of range: 1 or more"),
    ],
)
def test_problems_speak_the_user_s_language(config: dict, says: str) -> None:
    (problem,) = check(config, TASK)
    assert problem.text().startswith(says)
