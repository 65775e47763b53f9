"""The operation folder's JSON Schema: ``python -m skyinfra.stacks.schema`` writes it beside this file.

Made from the dataclasses of `operation` and `model.spec`, so that whoever puts a shared store in the folder's place can
check what it stores. A test keeps the committed file current.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from skyinfra.stacks.operation import OperationEvent, OperationRequest, OperationResult

__all__ = ["PATH", "document", "text"]

PATH = Path(__file__).with_name("operation.schema.json")


def document() -> dict[str, Any]:
    """One schema with ``$defs`` for ``request.json``, a line of ``events.jsonl`` and ``result.json``."""
    from pydantic import TypeAdapter  # the product's workers need no pydantic

    types = {"request": OperationRequest, "event": OperationEvent, "result": OperationResult}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "skyinfra operation folder",
        "$defs": {name: TypeAdapter(kind).json_schema() for name, kind in types.items()},
    }


def text() -> str:
    """The file's content."""
    return json.dumps(document(), indent=1, sort_keys=True) + "\n"


if __name__ == "__main__":
    PATH.write_text(text())
