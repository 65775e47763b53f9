"""What is published about task files, all of it from the schema that validates: a JSON Schema for editors and a page.

``python -m skyinfra.model.task_reference docs`` writes `task.schema.json` and `reference/task-yaml.md` there.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from skyinfra.model.config import TASK_OVERRIDES
from skyinfra.model.schema import task_json_schema
from skyinfra.model.schema_words import WORDS

__all__ = ["described_schema", "page", "public_keys", "schema_text"]

Schema = dict[str, Any]

_HEAD = """# Task YAML

Generated from the schema that validates task files, by `python -m skyinfra.model.task_reference docs`. Editors take
the same from [task.schema.json](../task.schema.json), named in a first line `# yaml-language-server: $schema=PATH`.

```yaml
name: train
workdir: .
num_nodes: 1
resources:
  infra: local
  cpus: 2+
envs:
  EPOCHS: 3
setup: pip install -r requirements.txt
run: python train.py --epochs $EPOCHS
```

Unknown and duplicate keys are refused, all problems of a file at once, each with file, line, column and the key that
was probably meant. `null` means absent. `$NAME` is filled in from `envs` and `secrets` in `file_mounts`, `service`,
`workdir` and `volumes`; `setup` and `run` find them in their environment.
"""

_SEVERAL = """## Several tasks in one file

Documents are separated by `---`. Two or more tasks are a pipeline and run one after the other; a first document that
holds only `name` names it. A first document with `execution: parallel` and a `name` makes them a job group:
`primary_tasks` (when these end, the others are stopped), `termination_delay` (a time, or a map by name with `default`)
and `inter_connection` (false: members need not share a place). Members need names of letters, digits, `-` and `_`.
"""

_KINDS = {
    "object": "map",
    "array": "list",
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "true or false",
}


def public_keys(schema: Schema | None = None, prefix: str = "") -> Iterator[tuple[str, Schema]]:
    """Every public key by its path (`[]` an entry of a list, `*` any name), outermost first."""
    given = task_json_schema() if schema is None else schema
    for branch in (given, *given.get("anyOf", ())):
        for name, inner in branch.get("properties", {}).items():
            path = f"{prefix}.{name}" if prefix else name
            yield path, inner
            if path not in ("resources.any_of", "resources.ordered"):  # alternatives: the keys beside them again
                yield from public_keys(inner, path)
        if isinstance(branch.get("items"), dict):
            yield from public_keys(branch["items"], f"{prefix}[]")
        if isinstance(branch.get("additionalProperties"), dict):
            yield from public_keys(branch["additionalProperties"], f"{prefix}.*")


def described_schema() -> Schema:
    """The schema for editors, each key with its words."""
    schema = task_json_schema()
    for path, inner in public_keys(schema):
        inner["description"] = WORDS[path]
    for path in ("any_of", "ordered"):
        for name, inner in schema["properties"]["resources"]["properties"][path]["items"]["properties"].items():
            inner["description"] = WORDS[f"resources.{name}"]
    return schema


def schema_text() -> str:
    return json.dumps(described_schema(), indent=1, ensure_ascii=False) + "\n"


def page() -> str:
    """The reference as Markdown: a table for each map."""
    sections: dict[str, list[tuple[str, Schema]]] = {}
    for path, inner in public_keys():
        parent, _, name = path.rpartition(".")
        sections.setdefault(parent, []).append((name, inner))
    parts = [_HEAD]
    for parent, rows in sections.items():
        parts.append(f"## {f'`{parent}`' if parent else 'A task'}\n")
        parts.append("| key | takes | |\n|---|---|---|")
        for name, inner in rows:
            path = f"{parent}.{name}" if parent else name
            parts.append(f"| `{name}` | {takes(inner)} | {WORDS[path]} |")
        parts.append("")
        if parent == "config":
            allowed = ", ".join(f"`{'.'.join(one)}`" for one in TASK_OVERRIDES)
            parts.append(f"Besides hooks a task may set: {allowed}.\n")
    return "\n".join([*parts, _SEVERAL])


def takes(schema: Schema) -> str:
    """What a key may be given, in a few words."""
    if "enum" in schema:
        words = dict.fromkeys(str(one).lower() for one in schema["enum"] if one is not None)
        return ", ".join(f"`{word}`" for word in words)
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(text for branch in schema["anyOf"] if (text := takes(branch))))
    kinds = schema.get("type", [])
    words = [_KINDS[kind] for kind in ([kinds] if isinstance(kinds, str) else kinds) if kind != "null"]
    text = " or ".join(words)
    low, high = schema.get("minimum"), schema.get("maximum")
    if "exclusiveMinimum" in schema:
        text += f" over {schema['exclusiveMinimum']}"
    elif high is not None:
        text += f", {low} to {high}"
    elif low is not None:
        text += f", {low} or more"
    if text == "list" and isinstance(schema.get("items"), dict):
        entries = takes(schema["items"])
        text = f"list ({entries})" if entries else text
    return text


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    (folder / "reference").mkdir(exist_ok=True)
    (folder / "task.schema.json").write_text(schema_text())
    (folder / "reference" / "task-yaml.md").write_text(page())
