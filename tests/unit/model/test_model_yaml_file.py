"""The YAML reader: values as PyYAML reads them, with places, and refusals that name one."""

import string
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from skyinfra.model.exceptions import InvalidSkyPilotConfigError
from skyinfra.model.yaml_file import MAX_BYTES, read_yaml_file, read_yaml_str

TEXT = "a: &x {b: 1, c: [1, two]}\nd:\n  <<: *x\n  e: 'no'\nf: no\n---\nz: 012\n"


def test_values_are_those_of_pyyaml() -> None:
    assert read_yaml_str(TEXT).documents == list(yaml.safe_load_all(TEXT))


def test_every_value_knows_its_place() -> None:
    source = read_yaml_str(TEXT, "f.yaml")
    assert source.where(0, ("a", "c", 1)) == "f.yaml:1:21"
    assert source.where(0, ("d", "e")) == "f.yaml:4:6"
    assert source.where(0, ("d", "e"), at_key=True) == "f.yaml:4:3"
    assert source.where(0, ("d", "b")) == "f.yaml:1:11"  # merged in from there
    assert source.where(1, ("z",)) == "f.yaml:7:4"


def test_a_path_that_the_text_does_not_have_gives_its_deepest_known_part() -> None:
    source = read_yaml_str(TEXT, "f.yaml")
    assert source.where(0, ("d", "nope", 3)) == "f.yaml:3:3"
    assert source.where(0, ("nope",)) == "f.yaml:1:1"
    assert source.where(9, ("a",)) == "f.yaml"


@pytest.mark.parametrize("text", ["", "# only a comment\n"])
def test_an_empty_text_has_no_document(text: str) -> None:
    assert read_yaml_str(text).documents == []


def test_duplicate_keys_are_refused_in_files_all_at_once(tmp_path: Path) -> None:
    file = tmp_path / "t.yaml"
    file.write_text("run: a\nenvs: {A: 1, A: 2}\nrun: b\n")
    with pytest.raises(InvalidSkyPilotConfigError) as caught:
        read_yaml_file(file)
    assert str(caught.value).splitlines() == [
        f"{file}:2:14: duplicate key 'A' (first on line 2)",
        f"{file}:3:1: duplicate key 'run' (first on line 1)",
    ]
    assert read_yaml_str("run: a\nrun: b\n").documents == [{"run": "b"}]


def alias_bomb() -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (alias_bomb(), "more than 100000 values"),
        ("- a\n" * 150_000, "more than 100000 values"),
        ("[" * 60_000, "nest"),
        ("- " * 60_000, "nested more than 100 levels"),
        ("{a: " * 500, "nested more than 100 levels"),
        ('a: "x', "not valid YAML"),
        ("a: b\n\t- c", "not valid YAML"),
        ("a: \x00b", r"<string>:1:4: character U\+0000"),
        ("a: !!python/object/apply:os.system [x]", "not plain data"),
        ("a: !thing x", "not plain data"),
        ("? {a: b}\n: c", "a key must be a plain value"),
        ("a: *nope", "has no anchor"),
        ("a: 2024-99-99", "is not a timestamp"),
        ("<<: 3", "only a map can be merged"),
    ],
)
def test_what_is_refused_says_why_and_where_within_a_second(text: str, says: str) -> None:
    began = time.monotonic()
    with pytest.raises(InvalidSkyPilotConfigError, match=says) as caught:
        read_yaml_str(text)
    assert time.monotonic() - began < 5  # a hang, not a speed: the promise itself is held by bench/
    assert str(caught.value).startswith("<string>:")


def test_a_file_that_is_too_large_is_refused_unread(tmp_path: Path) -> None:
    file = tmp_path / "big.yaml"
    with file.open("wb") as out:
        out.truncate(100 * 1024 * 1024)
    with pytest.raises(InvalidSkyPilotConfigError, match="larger than 10 MB"):
        read_yaml_file(file)
    assert MAX_BYTES == 10 * 1024 * 1024


def test_other_encodings_are_refused_with_the_byte_s_place(tmp_path: Path) -> None:
    file = tmp_path / "t.yaml"
    file.write_bytes("run: a\nname: caf\xe9\n".encode("latin-1"))
    with pytest.raises(InvalidSkyPilotConfigError, match=":2:10: not UTF-8 text"):
        read_yaml_file(file)


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    for encoding in ("utf-8-sig", "utf-16"):
        file = tmp_path / encoding
        file.write_bytes("run: ä\n".encode(encoding))
        assert read_yaml_file(file).documents == [{"run": "ä"}]


def test_a_syntax_error_is_also_a_yaml_error() -> None:
    with pytest.raises(yaml.YAMLError):
        read_yaml_str("a: [1")


def test_a_missing_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_yaml_file(tmp_path / "nope.yaml")


_plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(string.printable),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(string.ascii_letters), inner, max_size=4),
    max_leaves=15,
)


@given(_plain)
@settings(max_examples=60, deadline=None)
def test_whatever_pyyaml_writes_is_read_back(value: object) -> None:
    assert read_yaml_str(yaml.safe_dump(value)).documents == [value]


def refusal_of(read: Callable[[], object]) -> Exception | None:
    try:
        read()
    except InvalidSkyPilotConfigError as exc:
        return exc
    return None


@given(st.text(alphabet="ab:-[]{}&*!|>'\"#%?,<\n\t \x07\ud800é0", max_size=80))
@settings(max_examples=300, deadline=None)
def test_any_text_is_read_or_refused(text: str) -> None:
    refusal = refusal_of(lambda: read_yaml_str(text))
    assert refusal is None or str(refusal).startswith("<string>")


@given(st.binary(max_size=200))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_read_or_refused(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "t.yaml"
    file.write_bytes(data)
    refusal = refusal_of(lambda: read_yaml_file(file))
    assert refusal is None or str(refusal).startswith(str(file))
