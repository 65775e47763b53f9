"""The latest answers of the read verbs, so that `get(id)` works elsewhere. Bounded; never in the database."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

__all__ = ["ReadRing"]


@dataclass(frozen=True)
class Answer:
    verb: str
    user_id: str
    user_name: str
    at: float
    status: str
    body: bytes
    """The JSON of the answer's result or error, with its key: ``"result":…``."""


class ReadRing:
    def __init__(self, entries: int = 2000, size: int = 4 << 20) -> None:
        self._entries = entries
        self._size = size
        self._held = 0
        self._answers: OrderedDict[str, Answer] = OrderedDict()

    def put(self, request_id: str, answer: Answer) -> None:
        self._answers[request_id] = answer
        self._held += len(answer.body)
        while len(self._answers) > self._entries or (self._held > self._size and len(self._answers) > 1):
            _, oldest = self._answers.popitem(last=False)
            self._held -= len(oldest.body)

    def get(self, request_id: str) -> Answer | None:
        """By whole id or unique prefix."""
        exact = self._answers.get(request_id)
        if exact is not None or len(request_id) >= 36 or not request_id:
            return exact
        found = [answer for key, answer in self._answers.items() if key.startswith(request_id)]
        return found[0] if len(found) == 1 else None
