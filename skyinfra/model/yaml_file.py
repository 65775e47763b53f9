"""Reads YAML as a stranger's file: every value keeps its line and column, and nothing in it can hurt the reader.

One pass over the parser's events builds the values and remembers where each key and value stands. Refused, quickly and
by name: more than 10 MB, more than 100,000 values once aliases are spelled out (an alias bomb), nesting over 100
levels, other encodings, tags that are not plain data, and, in files, duplicate keys. What the keys mean is not this
module's business.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from skyinfra.model import problems as problems_lib
from skyinfra.model.exceptions import InvalidSkyPilotConfigError
from skyinfra.model.problems import Path, Problem

if TYPE_CHECKING:
    from yaml import events as yaml_events

__all__ = ["MAX_BYTES", "MAX_DEPTH", "MAX_VALUES", "Source", "read_yaml_file", "read_yaml_str"]

MAX_BYTES = 10 * 1024 * 1024
MAX_DEPTH = 100
MAX_VALUES = 100_000

Position = tuple[int, int]
"""Line and column, from 1."""


class Source:
    """The documents of one text, and where everything in them stands."""

    def __init__(
        self,
        name: str,
        documents: list[Any],
        marks: dict[int, dict[Any, tuple[Position, Position]]],
        roots: Sequence[Position] = (),
    ) -> None:
        self.name = name
        self.documents = documents
        self._roots = roots
        # By id of the containers in `documents`, which live as long as this object does.
        self._marks = marks

    def __deepcopy__(self, memo: dict[int, Any]) -> Source:
        return self  # never changed, and its marks go by the identity of its documents

    def __reduce__(self) -> Any:
        return (Source, (self.name, [], {}))  # positions do not travel: ids mean nothing elsewhere

    def position(self, document: int, path: Path, at_key: bool = False) -> Position | None:
        """Line and column of the value (or key) at `path`, or of the deepest part of it that the text
        has: at least the document's own."""
        value: Any = self.documents[document] if document < len(self.documents) else None
        found = self._roots[document] if document < len(self._roots) else None
        for key in path:
            marks = self._marks.get(id(value), {})
            if key not in marks:
                break
            key_at, value_at = marks[key]
            found = key_at if at_key and key == path[-1] else value_at
            value = value[key] if isinstance(value, (dict, list)) else None
        return found

    def where(self, document: int, path: Path, at_key: bool = False) -> str:
        """`FILE:LINE:COL`, or the name alone when the text has no such place."""
        at = self.position(document, path, at_key)
        return f"{self.name}:{at[0]}:{at[1]}" if at else self.name

    @contextmanager
    def locating(self, document: int = 0) -> Iterator[None]:
        """Errors about the document's content leave with `FILE:LINE:COL:` before each problem."""
        try:
            yield
        except Exception as exc:  # same class, same traceback: only the text gains a place
            self._locate(exc, document)
            raise

    def _locate(self, exc: Exception, document: int) -> None:
        if getattr(exc, "_located", False):
            return
        found: list[Problem] = getattr(exc, "_problems", [])
        if found:
            lines = [f"{self.where(document, p.path, p.at_key)}: {p.text()}" for p in found]
        elif isinstance(exc, (ValueError, AssertionError)) and exc.args:
            lines = [f"{self.where(document, problems_lib.path_of(exc))}: {exc}"]
        else:
            return
        exc.args = ("\n".join(lines),)
        exc._located = True  # type: ignore[attr-defined]


def read_yaml_file(path: str | os.PathLike[str]) -> Source:
    """The documents of a file. Raises `InvalidSkyPilotConfigError` for what is refused, `OSError` for no file."""
    name = os.fspath(path)
    with open(os.path.expanduser(name), "rb") as file:
        data = file.read(MAX_BYTES + 1)  # a pipe has no size to ask for, and an endless one must not be read to its end
    if len(data) > MAX_BYTES:
        raise InvalidSkyPilotConfigError(f"{name}: larger than {MAX_BYTES // 2**20} MB, which no task file is")
    return _read(_decoded(data, name), name, refuse_duplicates=True)


def read_yaml_str(text: str, name: str = "<string>", refuse_duplicates: bool = False) -> Source:
    """The documents of a text. Raises `InvalidSkyPilotConfigError` for what is refused."""
    if len(text) > MAX_BYTES:
        raise InvalidSkyPilotConfigError(f"{name}: larger than {MAX_BYTES // 2**20} MB, which no task file is")
    return _read(text, name, refuse_duplicates)


def _decoded(data: bytes, name: str) -> str:
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as exc:
        before = data[: exc.start]
        line = before.count(b"\n") + 1
        column = exc.start - (before.rfind(b"\n") + 1) + 1
        raise InvalidSkyPilotConfigError(
            f"{name}:{line}:{column}: not {encoding.removesuffix('-sig').upper()} text (byte 0x{data[exc.start]:02x})"
        ) from exc


def _read(text: str, name: str, refuse_duplicates: bool) -> Source:
    import yaml  # 13 ms: a client that reads no YAML does not pay for it

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    builder = _Builder(name)
    try:
        for event in yaml.parse(text, Loader=loader):
            builder.take(event)
    except UnicodeEncodeError as exc:
        raise InvalidSkyPilotConfigError(f"{_place(name, text, exc.start)}: half of a surrogate pair") from exc
    except yaml.MarkedYAMLError as exc:
        raise _syntax_error(name, exc) from exc
    except yaml.reader.ReaderError as exc:
        raise _unreadable(name, text, exc) from exc
    if refuse_duplicates and builder.duplicates:
        raise InvalidSkyPilotConfigError("\n".join(builder.duplicates))
    return Source(name, builder.documents, builder.marks, builder.roots)


def _syntax_error(name: str, exc: Any) -> Exception:
    import yaml

    class YamlSyntaxError(InvalidSkyPilotConfigError, yaml.YAMLError):
        """Not YAML. Also a `yaml.YAMLError`, which is what users of SkyPilot's loaders catch."""

    mark = exc.problem_mark or exc.context_mark
    at = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
    return YamlSyntaxError(f"{at}: not valid YAML: {exc.problem or exc.context or exc}")


def _unreadable(name: str, text: str, exc: Any) -> Exception:
    character = exc.character if isinstance(exc.character, str) else chr(exc.character)
    place = _place(name, text, max(text.find(character), 0))
    return InvalidSkyPilotConfigError(f"{place}: character U+{ord(character):04X} may not be in YAML")


def _place(name: str, text: str, offset: int) -> str:
    line_start = text.rfind("\n", 0, offset) + 1
    return f"{name}:{text.count(chr(10), 0, offset) + 1}:{offset - line_start + 1}"


class _Frame:
    """A container that is still open."""

    __slots__ = ("anchor", "at", "count", "key", "key_at", "marks", "merges", "tag", "value", "waiting")

    def __init__(self, value: Any, at: Position, anchor: str | None, tag: str | None) -> None:
        self.value = value
        self.at = at
        self.anchor = anchor
        self.tag = tag
        self.marks: dict[Any, tuple[Position, Position]] = {}
        self.merges: list[tuple[Any, Position]] = []
        self.waiting = True  # a mapping waits for a key
        self.key: Any = None
        self.key_at: Position = at
        self.count = 1  # values in here, with aliases spelled out


_MERGE = object()


class _Builder:
    """Values and positions out of parser events, with a stack of its own: depth is a number, not a recursion."""

    def __init__(self, name: str) -> None:
        import yaml

        class Scalars(yaml.constructor.SafeConstructor, yaml.resolver.Resolver):
            """PyYAML's rules for what `yes`, `012` and `2024-01-01` are."""

            def __init__(self) -> None:
                yaml.constructor.SafeConstructor.__init__(self)
                yaml.resolver.Resolver.__init__(self)

        self.name = name
        self.documents: list[Any] = []
        self.roots: list[Position] = []
        self.marks: dict[int, dict[Any, tuple[Position, Position]]] = {}
        self.duplicates: list[str] = []
        self._yaml = yaml
        self._scalars = Scalars()
        self._open: list[_Frame] = []
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._total = 0
        self._seen_root = False

    def take(self, event: yaml_events.Event) -> None:
        yaml = self._yaml
        kind = type(event)
        if kind is yaml.ScalarEvent:
            self._scalar(event)
        elif kind is yaml.MappingStartEvent:
            self._push(_Frame({}, _at(event), event.anchor, event.tag))  # type: ignore[attr-defined]
        elif kind is yaml.SequenceStartEvent:
            self._push(_Frame([], _at(event), event.anchor, event.tag))  # type: ignore[attr-defined]
        elif kind is yaml.MappingEndEvent or kind is yaml.SequenceEndEvent:
            self._pop()
        elif kind is yaml.AliasEvent:
            self._alias(event)
        elif kind is yaml.DocumentStartEvent:
            self._anchors, self._seen_root = {}, False
        elif kind is yaml.DocumentEndEvent and not self._seen_root:
            self.documents.append(None)
            self.roots.append(_at(event))

    def _refuse(self, at: Position, message: str) -> InvalidSkyPilotConfigError:
        return InvalidSkyPilotConfigError(f"{self.name}:{at[0]}:{at[1]}: {message}")

    def _push(self, frame: _Frame) -> None:
        if len(self._open) >= MAX_DEPTH:
            raise self._refuse(frame.at, f"nested more than {MAX_DEPTH} levels deep")
        self._open.append(frame)

    def _scalar(self, event: Any) -> None:
        at = _at(event)
        if event.tag is None and not event.implicit[0]:
            value: Any = event.value  # quoted or a block: text, whatever it looks like
        else:
            tag = event.tag or self._scalars.resolve(self._yaml.ScalarNode, event.value, event.implicit)
            value = self._constructed(tag, event.value, at)
        if event.anchor:
            self._anchors[event.anchor] = (value, 1)
        self._place(value, at, 1)

    def _constructed(self, tag: str, text: str, at: Position) -> Any:
        if tag == "tag:yaml.org,2002:str" or tag == "!":
            return text
        if tag == "tag:yaml.org,2002:merge":
            return _MERGE
        if tag == "tag:yaml.org,2002:value":
            return text
        make = self._scalars.yaml_constructors.get(tag)
        if make is None:
            raise self._refuse(at, f"the tag {tag!r} is not plain data")
        try:
            return make(self._scalars, self._yaml.ScalarNode(tag, text))
        except (ValueError, LookupError, OverflowError, self._yaml.YAMLError) as exc:
            short = tag.rpartition(":")[2]
            raise self._refuse(at, f"{text[:60]!r} is not a {short}") from exc

    def _alias(self, event: Any) -> None:
        at = _at(event)
        if event.anchor not in self._anchors:
            raise self._refuse(at, f"the alias *{event.anchor} has no anchor before it")
        value, count = self._anchors[event.anchor]
        self._place(value, at, count)

    def _pop(self) -> None:
        frame = self._open.pop()
        value = frame.value
        for merged, at in frame.merges:
            self._merge(frame, merged, at)
        if frame.tag == "tag:yaml.org,2002:set" and isinstance(value, dict):
            value = set(value)
        elif frame.tag is not None and frame.tag not in ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq", "!"):
            raise self._refuse(frame.at, f"the tag {frame.tag!r} is not plain data")
        self.marks[id(value)] = frame.marks
        if frame.anchor:
            self._anchors[frame.anchor] = (value, frame.count)
        self._place(value, frame.at, frame.count)

    def _merge(self, frame: _Frame, merged: Any, at: Position) -> None:
        """`<<: *other`: keys of its own win over merged ones, earlier merges over later."""
        for one in merged if isinstance(merged, list) else [merged]:
            if not isinstance(one, dict):
                raise self._refuse(at, "only a map can be merged with <<")
            theirs = self.marks.get(id(one), {})
            for key, value in one.items():
                if key not in frame.value:
                    frame.value[key] = value
                    frame.marks[key] = theirs.get(key, (at, at))

    def _place(self, value: Any, at: Position, count: int) -> None:
        """Puts a finished value where it belongs: a document, a list, or a map's key or value."""
        if not self._open:
            self._total += count
            self._check_total(at, self._total)
            self.documents.append(value)
            self.roots.append(at)
            self._seen_root = True
            return
        frame = self._open[-1]
        frame.count += count
        self._check_total(at, frame.count)
        if isinstance(frame.value, list):
            frame.marks[len(frame.value)] = (at, at)
            frame.value.append(value)
        elif frame.waiting:
            self._key(frame, value, at)
        else:
            self._value(frame, value, at)

    def _check_total(self, at: Position, count: int) -> None:
        if count > MAX_VALUES:
            raise self._refuse(at, f"more than {MAX_VALUES} values (aliases spelled out)")

    def _key(self, frame: _Frame, key: Any, at: Position) -> None:
        if isinstance(key, (dict, list, set)):
            raise self._refuse(at, "a key must be a plain value, not a map or list")
        if key is not _MERGE and key in frame.marks:
            first = frame.marks[key][0]
            self.duplicates.append(f"{self.name}:{at[0]}:{at[1]}: duplicate key {key!r} (first on line {first[0]})")
        frame.key, frame.key_at, frame.waiting = key, at, False

    def _value(self, frame: _Frame, value: Any, at: Position) -> None:
        if frame.key is _MERGE:
            frame.merges.append((value, at))
        else:
            if value is _MERGE:
                value = "<<"
            frame.value[frame.key] = value
            frame.marks[frame.key] = (frame.key_at, at)
        frame.waiting = True


def _at(event: Any) -> Position:
    return event.start_mark.line + 1, event.start_mark.column + 1
