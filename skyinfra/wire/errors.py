"""Bad bodies as one readable line, and the JSON shape of an error.

Exceptions of the product cross the wire through ``skyinfra.model.errors_wire``; here what pydantic says about a body
becomes a sentence that names the field.
"""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

__all__ = ["error_body", "explain"]


def error_body(
    kind: str, message: str, *, hint: str | None = None, detail: str | None = None, **attributes: Any
) -> dict[str, Any]:
    """The wire form of an error that has no exception object behind it."""
    return {
        "type": kind,
        "message": message,
        "args": [message],
        "attributes": attributes,
        "hint": hint,
        "detail": detail,
    }


def explain(verb: str, error: ValidationError) -> str:
    """All that is wrong with a body, on one line, the field first. Never shows the value: it may be a secret."""
    problems = []
    for item in error.errors(include_url=False, include_context=False, include_input=False):
        where = ".".join(str(part) for part in item["loc"]) or "body"
        problems.append(f"{where}: {item['msg'][:1].lower()}{item['msg'][1:]}")
    return f"bad body for {verb}: " + "; ".join(problems[:5])
