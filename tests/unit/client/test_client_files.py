"""What travels and under which name."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from skyinfra.client.files import pack


def packed(source: Path) -> tuple[str, str, dict[str, tarfile.TarInfo]]:
    file = io.BytesIO()
    digest, kind = pack(str(source), file)
    assert hashlib.sha256(file.getvalue()).hexdigest() == digest
    file.seek(0)
    with tarfile.open(fileobj=file) as tar:
        return digest, kind, {member.name: member for member in tar.getmembers()}


def write(root: Path, **files: str) -> None:
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("DOT", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    write(root, aDOTtxt="a", sub__bDOTlog="b", sub__cDOTtxt="c", build__xDOTo="x")
    return root


def test_equal_trees_have_equal_digests_whenever_and_wherever_they_were_made(tree: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(tree, other)
    os.utime(other / "a.txt", (1, 1))
    assert packed(tree)[0] == packed(other)[0]
    (other / "a.txt").chmod(0o755)
    assert packed(tree)[0] != packed(other)[0]


def test_links_stay_links_modes_stay_and_empty_folders_travel(tree: Path) -> None:
    (tree / "link").symlink_to("a.txt")
    (tree / "dangling").symlink_to("/nowhere")
    (tree / "run.sh").write_text("#!/bin/sh")
    (tree / "run.sh").chmod(0o750)
    (tree / "empty").mkdir()
    _, kind, members = packed(tree)
    assert kind == "dir"
    assert (members["link"].linkname, members["dangling"].linkname) == ("a.txt", "/nowhere")
    assert members["run.sh"].mode == 0o750
    assert members["empty"].isdir()


def test_one_file_is_a_tar_with_one_file(tree: Path) -> None:
    _, kind, members = packed(tree / "a.txt")
    assert (kind, list(members)) == ("file", ["a.txt"])


def test_names_that_are_not_utf8_and_deep_names_survive(tmp_path: Path) -> None:
    root = tmp_path / "odd"
    deep = root / ("d" * 90) / ("e" * 90)
    deep.mkdir(parents=True)
    (deep / "f").touch()
    Path(os.fsdecode(os.fsencode(root) + b"/\xff\xfe")).touch()
    _, _, members = packed(root)
    assert os.fsdecode(b"\xff\xfe") in members
    assert f"{'d' * 90}/{'e' * 90}/f" in members


def test_skyignore_alone_counts_and_travels_itself(tree: Path) -> None:
    write(tree, DOTskyignore="*.log\n/build/\n!keep.log\n", DOTgitignore="*.txt\n", keepDOTlog="k")
    assert sorted(packed(tree)[2]) == [".gitignore", ".skyignore", "a.txt", "keep.log", "sub", "sub/c.txt"]


def test_a_folder_that_is_left_out_is_not_even_read(tree: Path) -> None:
    write(tree, DOTskyignore="build\n")
    (tree / "build").chmod(0)
    assert "build" not in packed(tree)[2]


def test_deeper_gitignores_win_over_those_above(tree: Path) -> None:
    write(tree, DOTgitignore="*.log\nbuild/\n", sub__DOTgitignore="!b.log\nc.txt\n")
    assert sorted(packed(tree)[2]) == [".gitignore", "a.txt", "sub", "sub/.gitignore", "sub/b.log"]


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_in_a_repository_gits_rules_count_and_what_it_tracks_travels(tree: Path) -> None:
    def git(*argv: str) -> None:
        subprocess.run(["git", "-C", str(tree), "-c", "user.name=a", "-c", "user.email=a@b", *argv], check=True,
                       capture_output=True)  # fmt: skip

    git("init")
    write(tree, DOTgitignore="*.log\nsub/build\n", tracked__tDOTlog="t", sub__build__o="o")
    git("add", "-f", "tracked/t.log", ".gitignore")
    (tree / ".git/info/exclude").write_text("a.txt\n")
    names = packed(tree)[2]
    assert "tracked/t.log" in names
    assert not {"sub/b.log", "a.txt", "sub/build"} & set(names)
    assert ".git/config" in names
    assert sorted(packed(tree / "sub")[2]) == ["c.txt"]  # the rules of the repository above count, too


def test_a_missing_or_unreadable_source_is_one_line(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="nope: no such file or folder"):
        pack(str(tree / "nope"), io.BytesIO())

    def refused(path: str) -> None:
        raise PermissionError(13, "Permission denied", path)  # raised by hand: root may read everything

    monkeypatch.setattr("skyinfra.client.files.os.scandir", refused)
    with pytest.raises(ValueError, match="tree: Permission denied"):
        pack(str(tree), io.BytesIO())


def test_a_pipe_stays_at_home_and_is_named(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tree / "pipe")
    assert "pipe" not in packed(tree)[2]
    assert "pipe is a socket, pipe or device" in capsys.readouterr().err


def test_a_file_that_shrinks_while_it_is_read_is_an_error_not_a_damaged_tree(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fstat

    class Bigger:
        def __init__(self, found: os.stat_result) -> None:
            self.st_size = found.st_size + 10

    monkeypatch.setattr("skyinfra.client.files.os.fstat", lambda fd: Bigger(real(fd)))
    with pytest.raises(ValueError, match="shrank"):
        pack(str(tree), io.BytesIO())
