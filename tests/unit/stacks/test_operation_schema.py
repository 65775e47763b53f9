"""What lies in an operation folder is what the committed schema says."""

import json

import jsonschema
import pytest

from skyinfra.model.spec import ClusterSpec, Slot
from skyinfra.stacks import schema
from skyinfra.stacks.operation import Changes, OperationEvent, OperationRequest, OperationResult

SPEC = ClusterSpec("0a", "default", "me", "c", "c-123456", "local", (Slot(0, gpus=("H100", 2)),))
EXAMPLES = {
    "request": OperationRequest("up-1", "up", "c-123456", SPEC, 3, 12.5, 7, ("*",)).to_json(),
    "event": OperationEvent(1, 12.5, "began", "urn:x", "create").__dict__,
    "result": OperationResult(
        "failed", 7, "capacity", "no room", changes=Changes(create=1), nodes=({"slot": 0},)
    ).to_json(),
}


def test_the_committed_schema_is_current():
    assert schema.PATH.read_text() == schema.text()


@pytest.mark.parametrize("name", EXAMPLES)
def test_what_is_written_validates(name):
    value = json.loads(json.dumps(EXAMPLES[name]))
    jsonschema.validate(value, schema.document()["$defs"][name])


def test_an_unknown_kind_of_operation_does_not_validate():
    value = json.loads(json.dumps({**EXAMPLES["request"], "kind": "explode"}))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(value, schema.document()["$defs"]["request"])
