"""Task files made up by chance, from the published schema and from junk: read, or refused in the user's words.

Never another exception, never a hang, and every line of a refusal names the file, the line and the column.
"""

from __future__ import annotations

import datetime
import re
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from skyinfra.cli import main
from skyinfra.model.config_file import read_config_file
from skyinfra.model.dag import Dag
from skyinfra.model.exceptions import InvalidSkyPilotConfigError
from skyinfra.model.schema import task_json_schema

TEXTS = (
    *(
        "aws",
        "gcp/us-central1/us-central1-a",
        "local",
        "k8s/a/b",
        "*/x",
        "A100:8",
        "80GB+:2",
        "NVIDIA:80GB+",
        "tpu-v5p-8",
    ),
    *(
        "8+",
        "16GB",
        "4x",
        "$A",
        "${A}",
        "/x",
        "/x/",
        "~/sky_workdir",
        "s3://b/",
        "docker:x",
        "",
        "none",
        "10m",
        "1w",
        "-1",
    ),
    *(
        "1e9",
        "inf",
        "nan",
        "8000-8010",
        "9-3",
        "secrets:A",
        "secrets:personal/A",
        "nvme:100+",
        "1TB",
        "\0",
        "é\u2028",
        "x" * 300,
    ),
)
texts = st.sampled_from(TEXTS) | st.text(string.printable, max_size=8)
numbers = st.sampled_from((0, -1, 1, 2, 65536, 2**70, 0.5, 1e300, float("inf"), float("nan")))
scalars = st.none() | st.booleans() | numbers | texts | st.just(datetime.date(2026, 1, 1)) | st.binary(max_size=3)
junk = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts | st.integers() | st.none(), inner, max_size=3),
    max_leaves=6,
)


def values(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """What a schema allows, nearly: numbers and texts mind no bounds, so that later checks have their share."""
    return st.integers(0, 11).flatmap(lambda chance: junk if chance == 0 else _shaped(schema))


def _shaped(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if "anyOf" in schema:
        return st.one_of(*map(values, schema["anyOf"]))
    kinds = schema.get("type", "string")
    return st.one_of(*(_of_kind(kind, schema) for kind in ([kinds] if isinstance(kinds, str) else kinds)))


def _of_kind(kind: str, schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    if kind == "object":
        return _map(schema)
    if kind == "array":
        return st.lists(st.deferred(lambda: values(schema.get("items", {}))), max_size=3)
    plain = {"string": texts, "boolean": st.booleans(), "null": st.none()}
    return plain.get(kind, numbers | st.integers(0, 100))


def _map(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    known: dict[str, Any] = schema.get("properties", {})
    rest = schema.get("additionalProperties")
    if known:
        some = st.lists(st.sampled_from(sorted(known)), max_size=5, unique=True)
        shaped = some.flatmap(
            lambda names: st.fixed_dictionaries({n: st.deferred(lambda n=n: values(known[n])) for n in names})
        )
        return st.tuples(shaped, st.dictionaries(texts, scalars, max_size=1) | st.just({})).map(
            lambda two: {**two[1], **two[0]}
        )
    inner = rest if isinstance(rest, dict) else {"type": ["string", "number", "null"]}
    return st.dictionaries(texts, st.deferred(lambda: values(inner)), max_size=3)


SCHEMA = task_json_schema()
headers = st.fixed_dictionaries(
    {"name": texts, "execution": st.sampled_from(("parallel", "serial", "x")) | scalars},
    optional={"primary_tasks": junk, "termination_delay": junk, "inter_connection": scalars, "other": scalars},
)
documents = st.tuples(st.lists(headers, max_size=1), st.lists(values(SCHEMA), min_size=1, max_size=3)).map(
    lambda two: two[0] + two[1]
)
many = settings(
    max_examples=200, deadline=4000, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def written(docs: list[Any]) -> str:
    return yaml.safe_dump_all(docs, allow_unicode=True, sort_keys=False)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SKYINFRA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("KUBECONFIG", "/nonexistent")
    return tmp_path / "task.yaml"


def unplaced(file: Path, read: Callable[[], None], refusals: tuple[type[Exception], ...]) -> list[str]:
    """Lines of the refusal, if there is one, that name no place."""
    try:
        read()
    except refusals as error:
        lines = str(error).split("\n")
        return [line for line in lines if not re.match(rf"{re.escape(str(file))}:\d+:\d+: \S", line)]
    return []


@given(documents)
@many
def test_a_file_is_read_or_each_problem_has_its_place(file: Path, docs: list[Any]) -> None:
    file.write_text(written(docs))

    def read() -> None:
        dag = Dag.from_yaml(file)
        dag.validate()
        for task in dag.tasks:
            again = type(task).from_yaml_config(task.to_yaml_config())
            assert again.to_yaml_config() == task.to_yaml_config()

    assert unplaced(file, read, (ValueError, AssertionError)) == []


@given(documents | st.binary(max_size=120))
@settings(many, max_examples=80)
def test_the_command_line_ends_with_an_exit_code_and_never_a_traceback(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], docs: list[Any] | bytes
) -> None:
    def reached(*_: object, **__: object) -> None:
        raise ValueError("the server was asked")

    monkeypatch.setattr("skyinfra.client.clusters.submit", reached)
    file.write_bytes(docs if isinstance(docs, bytes) else written(docs).encode())
    code = main.main(["launch", "--dryrun", "-y", "-c", "c", str(file)])
    said = capsys.readouterr().err
    assert code in (1, 2)
    assert "Traceback" not in said
    assert re.search(r"^error: \S", said, re.MULTILINE)


@given(st.dictionaries(st.sampled_from(("aws", "gcp", "jobs", "hooks", "db", "kubernetes")) | texts, junk, max_size=3))
@settings(many, max_examples=80)
def test_a_configuration_is_read_or_each_problem_has_its_place(file: Path, config: dict[str, Any]) -> None:
    file.write_text(written([config]))
    assert unplaced(file, lambda: read_config_file(file) and None, (InvalidSkyPilotConfigError,)) == []
