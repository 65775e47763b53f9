"""JSON Schemas of the wire models, written to ``schema.json`` beside this file: ``python -m skyinfra.wire.schema``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic.json_schema import models_json_schema

from skyinfra.wire.bodies import VERB_BODIES, ErrorBody, Handle, RequestPayload

SCHEMA_FILE = Path(__file__).with_name("schema.json")


def schemas() -> dict[str, Any]:
    """One document: `$defs` holds every model, `verbs` says which one is the body of which verb."""
    models = [*VERB_BODIES.values(), ErrorBody, Handle, RequestPayload]
    _, document = models_json_schema([(model, "validation") for model in models], ref_template="#/$defs/{model}")
    verbs = {verb: {"$ref": f"#/$defs/{model.__name__}"} for verb, model in VERB_BODIES.items()}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "verbs": verbs, **document}


def rendered() -> str:
    return json.dumps(schemas(), indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    SCHEMA_FILE.write_text(rendered())
