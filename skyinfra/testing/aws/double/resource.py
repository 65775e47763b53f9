"""What a resource type of the double declares, and what the servicer asks of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from skyinfra.testing.aws.double.connection import Connection, NotFound
from skyinfra.testing.aws.double.values import Properties, tag_list

__all__ = ["Resource", "one"]


class Resource:
    """One resource of one type, while one call works on it. `actual` reads the cloud; the servicer does the rest.

    The class's tables are the provider's: which inputs exist (`tags` and `region` always do), which of them are
    required, need a replacement, are computed when left out, and are not given back by the API.
    """

    token = ""
    label = ""
    inputs: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    replace: frozenset[str] = frozenset()
    computed: frozenset[str] = frozenset()
    unread: frozenset[str] = frozenset()
    unknown: tuple[str, ...] = ()
    """Outputs that a preview cannot know."""
    auto: tuple[str, int] | None = None
    """Which input gets a name when none is given, and how long it may be."""
    defaults: ClassVar[Properties] = {}
    tagged = True

    def __init__(self, connection: Connection, region: str | None, urn: str = "") -> None:
        self.connection = connection
        self.region = region or connection.region
        self.urn = urn

    # what a type implements -------------------------------------------------------------------------------------------

    def create(self, inputs: Properties, tags: dict[str, str]) -> str:
        """Make it; its id. Raises `InitFailed` from the moment on that something exists."""
        raise NotImplementedError

    def actual(self, identifier: str, known: Properties) -> Properties:
        """Its outputs as the cloud tells them now. Raises `NotFound`, or the service's own error."""
        raise NotImplementedError

    def update(self, identifier: str, old: Properties, new: Properties, changed: set[str]) -> None:
        raise RuntimeError(f"cannot update {sorted(changed)} in place")

    def delete(self, identifier: str, known: Properties) -> None:
        raise NotImplementedError

    def must_replace(self, key: str, old: Properties, new: Properties) -> bool:
        return key in self.replace

    def check(self, inputs: Properties) -> Iterable[tuple[str, str]]:
        """`(property, reason)` of what the tables cannot say."""
        return ()

    def retag(self, identifier: str, old: dict[str, str], new: dict[str, str]) -> None:
        if gone := [key for key in old if key not in new]:
            self.ec2.delete_tags(Resources=[identifier], Tags=[{"Key": key} for key in gone])
        if added := {key: value for key, value in new.items() if old.get(key) != value}:
            self.ec2.create_tags(Resources=[identifier], Tags=tag_list(added))

    # what they share --------------------------------------------------------------------------------------------------

    @property
    def ec2(self) -> Any:
        return self.connection.client("ec2", self.region)

    def arn(self, service: str, what: str) -> str:
        return f"arn:aws:{service}:{self.region}:{self.connection.account}:{what}"

    def tag_specifications(self, kind: str, tags: dict[str, str]) -> list[Properties]:
        return [{"ResourceType": kind, "Tags": tag_list(tags)}] if tags else []


def one(items: list[Any]) -> Any:
    """The first. Raises `NotFound` when there is none."""
    if not items:
        raise NotFound
    return items[0]
