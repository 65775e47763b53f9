"""What is wrong with a user's file, and where: the vocabulary that the YAML reader, the schema and the parsers share.

A parser deep inside knows only its key; each caller adds its own with `under`, and whoever holds the text turns the
path into `FILE:LINE:COL` (see `yaml_file.Source.locating`). So no parser carries a file around.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from skyinfra.model.exceptions import InvalidSkyPilotConfigError

__all__ = ["Path", "Problem", "closest", "path_of", "path_text", "raise_problems", "under"]

Path = tuple[Any, ...]
"""Keys and indexes from the document's root."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong."""

    path: Path
    message: str
    at_key: bool = False
    """Point at the key (an unknown one) rather than at its value."""

    def text(self) -> str:
        """The problem with its key path in front, which an unknown key near the top can do without."""
        if self.at_key and len(self.path) <= 2:
            return self.message
        where = path_text(self.path[:-1] if self.at_key else self.path)
        return f"{where}: {self.message}" if where else self.message


def path_text(path: Path) -> str:
    """`resources.any_of[0].cpus`."""
    out = ""
    for part in path:
        out += f"[{part}]" if isinstance(part, int) else f".{part}" if out else str(part)
    return out


@contextmanager
def under(*keys: Any) -> Iterator[None]:
    """Whatever is raised inside happened under these keys."""
    try:
        yield
    except Exception as exc:  # every class passes through, with its path made longer
        exc._key_path = (*keys, *path_of(exc))  # type: ignore[attr-defined]
        problems = getattr(exc, "_problems", None)
        if problems:
            exc._problems = [  # type: ignore[attr-defined]
                Problem((*keys, *p.path), p.message, p.at_key) for p in problems
            ]
        raise


def path_of(exc: BaseException) -> Path:
    """Where `exc` happened, as far as it is known."""
    return getattr(exc, "_key_path", ())


def raise_problems(problems: Iterable[Problem], what: str) -> None:
    """Raises `InvalidSkyPilotConfigError` naming every problem, or returns when there is none."""
    found = list(problems)
    if not found:
        return
    lines = [p.text() for p in found]
    if len(found) == 1:
        exc = InvalidSkyPilotConfigError(f"Invalid {what}: {lines[0]}")
    else:
        exc = InvalidSkyPilotConfigError(f"Invalid {what}:\n" + "\n".join(f"  {line}" for line in lines))
    exc._problems = found  # type: ignore[attr-defined]
    raise exc


def closest(word: Any, known: Iterable[str]) -> str | None:
    """The known word that was probably meant."""
    import difflib  # 3 ms, and only wanted when something is wrong

    names = list(known)
    if not isinstance(word, str):
        return None
    folded = {n.lower(): n for n in names}
    found = difflib.get_close_matches(word.lower(), list(folded), n=1, cutoff=0.6)
    return folded[found[0]] if found else None
