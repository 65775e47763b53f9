"""What is published about task files is generated, current, and about the schema that validates."""

import json
import re
from pathlib import Path

import jsonschema
import pytest

from skyinfra.model import task_reference
from skyinfra.model.dag import Dag
from skyinfra.model.schema import task_json_schema
from skyinfra.model.schema_words import WORDS

DOCS = Path(__file__).parents[3] / "docs"
HOW = "write it with: python -m skyinfra.model.task_reference docs"


def test_every_public_key_has_its_words_and_no_word_lacks_its_key() -> None:
    assert {path for path, _ in task_reference.public_keys()} == set(WORDS)


def test_the_committed_schema_and_page_are_current() -> None:
    assert (DOCS / "task.schema.json").read_text() == task_reference.schema_text(), HOW
    assert (DOCS / "reference" / "task-yaml.md").read_text() == task_reference.page(), HOW


def test_descriptions_change_nothing_about_what_is_valid() -> None:
    def bare(schema: object) -> object:
        if isinstance(schema, list):
            return [bare(one) for one in schema]
        if not isinstance(schema, dict):
            return schema
        return {k: bare(v) for k, v in schema.items() if not (k == "description" and isinstance(v, str))}

    schema = json.loads((DOCS / "task.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    assert bare(schema) == bare(task_json_schema())


def test_the_page_s_example_is_a_task() -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", task_reference.page(), re.DOTALL)
    assert Dag.from_yaml_str(example).tasks[0].num_nodes == 1


@pytest.mark.parametrize("path", sorted((DOCS.parent / "examples").glob("*.yaml")), ids=lambda path: path.name)
def test_examples_are_valid_for_editors_too(path: Path) -> None:
    import yaml

    for document in yaml.safe_load_all(path.read_text()):
        jsonschema.validate(document, json.loads((DOCS / "task.schema.json").read_text()))
