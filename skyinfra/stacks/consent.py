"""What an update may not do unasked: delete or replace a machine or disk. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from skyinfra.stacks.events import Planned

__all__ = ["KEEPSAKES", "unasked"]

#: Resource types that hold what users would miss. A cloud's own are added with its program.
KEEPSAKES = frozenset({"skyinfra:local:Machine", "skyinfra:ssh:Machine", "aws:ec2/instance:Instance"})
_ENDS = frozenset({"delete", "replace", "create-replacement", "delete-replaced", "discard", "discard-replaced"})


def unasked(steps: Iterable[Planned], consent: Iterable[str]) -> list[str]:
    """URNs that the plan would delete or replace without consent (``*`` consents to all), each once, in order."""
    allowed = set(consent)
    if "*" in allowed:
        return []
    ends = [step.urn for step in steps if step.op in _ENDS and step.type in KEEPSAKES and step.urn not in allowed]
    return list(dict.fromkeys(ends))
