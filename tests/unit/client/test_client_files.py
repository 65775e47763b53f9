"""What of a folder travels, under which name, and how it is remembered."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from skyinfra.client import stat_cache, trees
from skyinfra.client.trees import Tree, read_tree
from skyinfra.runtime import tree as manifests
from skyinfra.runtime.tree import CHUNK_BYTES, Entry


@pytest.fixture(autouse=True)
def state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "state"
    monkeypatch.setenv("SKYINFRA_HOME", str(home))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    return home


def entries(found: Tree) -> dict[str, Entry]:
    found.manifest.seek(0)
    raw = found.manifest.read()
    assert hashlib.sha256(raw).hexdigest() == found.digest
    found.manifest.seek(0)
    return {entry.name: entry for entry in manifests.read(found.manifest)}


def sent(source: Path) -> dict[str, Entry]:
    found = read_tree(str(source))
    with found.manifest:
        return entries(found)


def digest(source: Path) -> str:
    found = read_tree(str(source))
    found.manifest.close()
    return found.digest


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


def git(folder: Path, *argv: str) -> None:
    command = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b", *argv]
    subprocess.run(command, check=True, capture_output=True)


needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def test_equal_trees_have_equal_digests_wherever_they_lie(tree: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(tree, other)
    assert digest(tree) == digest(other)
    (other / "a.txt").chmod(0o755)
    assert digest(tree) != digest(other)


def test_links_stay_links_modes_stay_and_empty_folders_travel(tree: Path) -> None:
    (tree / "link").symlink_to("a.txt")
    (tree / "dangling").symlink_to("/nowhere")
    (tree / "run.sh").write_text("#!/bin/sh")
    (tree / "run.sh").chmod(0o750)
    (tree / "empty").mkdir()
    os.link(tree / "a.txt", tree / "hard")
    found = sent(tree)
    assert (found["link"].target, found["dangling"].target) == ("a.txt", "/nowhere")
    assert (found["run.sh"].kind, found["run.sh"].mode) == ("f", 0o750)
    assert found["empty"].kind == "d"
    assert (found["hard"].kind, found["hard"].chunks) == ("f", found["a.txt"].chunks)
    assert found["a.txt"].mtime_ns == (tree / "a.txt").stat().st_mtime_ns


def test_one_file_is_a_tree_with_one_file(tree: Path) -> None:
    found = read_tree(str(tree / "a.txt"))
    assert found.kind == "file"
    assert list(entries(found)) == ["a.txt"]


def test_names_that_are_not_utf8_and_deep_names_survive(tmp_path: Path) -> None:
    root = tmp_path / "odd"
    deep = root / ("d" * 90) / ("e" * 90)
    deep.mkdir(parents=True)
    (deep / "f").touch()
    Path(os.fsdecode(os.fsencode(root) + b"/\xff\xfe")).touch()
    found = sent(root)
    assert os.fsdecode(b"\xff\xfe") in found
    assert f"{'d' * 90}/{'e' * 90}/f" in found


def test_a_big_file_is_cut_into_chunks_and_a_hole_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open(tmp_path / "big", "wb") as file:
        file.seek(50 * CHUNK_BYTES)
        file.write(b"end")
    read: list[int] = []
    real = os.pread

    def counted(fd: int, size: int, at: int) -> bytes:
        read.append(at)
        return real(fd, size, at)

    monkeypatch.setattr(trees.os, "pread", counted)
    found = read_tree(str(tmp_path / "big"))
    chunks = manifests.digests(entries(found)["big"].chunks)
    assert len(chunks) == 51
    assert set(chunks[:50]) == {hashlib.sha256(bytes(CHUNK_BYTES)).digest()}
    assert chunks[50] == hashlib.sha256(b"end").digest()
    assert len(found.pieces) == 2
    assert len(read) < 5


def test_skyignore_alone_counts_and_travels_itself(tree: Path) -> None:
    write(tree, DOTskyignore="*.log\n/build/\n!keep.log\n.git\n", DOTgitignore="*.txt\n", keepDOTlog="k", DOTgit__x="x")
    assert sorted(sent(tree)) == [".gitignore", ".skyignore", "a.txt", "keep.log", "sub", "sub/c.txt"]


def test_a_folder_that_is_left_out_is_not_even_read(tree: Path) -> None:
    write(tree, DOTskyignore="build\n")
    (tree / "build").chmod(0)
    assert "build" not in sent(tree)


def test_deeper_gitignores_win_over_those_above(tree: Path) -> None:
    write(tree, DOTgitignore="*.log\nbuild/\n", sub__DOTgitignore="!b.log\nc.txt\n")
    assert sorted(sent(tree)) == [".gitignore", "a.txt", "sub", "sub/.gitignore", "sub/b.log"]


@needs_git
def test_in_a_repository_gits_rules_count_and_what_it_tracks_travels(tree: Path) -> None:
    git(tree, "init")
    write(tree, DOTgitignore="*.log\nsub/build\n", tracked__tDOTlog="t", sub__build__o="o", kept__DOTgitignore="!k.log")
    write(tree, kept__kDOTlog="k", held__in__tDOTo="tracked", held__in__uDOTo="not")
    git(tree, "add", "-f", "tracked/t.log", ".gitignore", "held/in/t.o")
    (tree / ".git/info/exclude").write_text("a.txt\nheld\n")
    found = sent(tree)
    assert {"tracked/t.log", "kept/k.log", "held/in/t.o", ".git/config"} <= set(found)
    assert not {"sub/b.log", "a.txt", "sub/build", "held/in/u.o"} & set(found)
    assert sorted(sent(tree / "sub")) == ["c.txt"]  # the rules of the repository above count, too


@needs_git
def test_a_repository_inside_has_its_own_rules(tree: Path) -> None:
    git(tree, "init")
    write(tree, DOTgitignore="*.o\n", inner__a="a", inner__bDOTlog="b", inner__cDOTo="c")
    git(tree / "inner", "init")
    write(tree, inner__DOTgitignore="*.log\n")
    found = set(sent(tree))
    assert {"inner/a", "inner/c.o", "inner/.git/config"} <= found
    assert not {"inner/b.log", "build/x.o"} & found


@needs_git
def test_without_git_the_files_themselves_are_read(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git(tree, "init")
    write(tree, DOTgitignore="*.log\n!/keep.log\n", keepDOTlog="k", sub__DOTgitignore="c.txt")
    (tree / ".git/info/exclude").write_text("a.txt\n")
    with_git = set(sent(tree))
    monkeypatch.setenv("PATH", "/nonexistent")
    assert set(sent(tree)) == with_git
    assert not {"a.txt", "sub/b.log", "sub/c.txt"} & with_git


def test_a_missing_or_unreadable_source_is_one_line(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="nope: no such file or folder"):
        read_tree(str(tree / "nope"))
    with pytest.raises(ValueError, match="/dev/null: neither a file nor a folder"):
        read_tree("/dev/null")

    def refused(path: str) -> None:
        raise PermissionError(13, "Permission denied", path)  # raised by hand: root may read everything

    monkeypatch.setattr("skyinfra.client.trees.os.scandir", refused)
    with pytest.raises(ValueError, match="tree: Permission denied"):
        read_tree(str(tree))


def test_pipes_and_sockets_stay_at_home_and_are_named(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tree / "pipe")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tree / "sock"))
        assert not {"pipe", "sock"} & set(sent(tree))
    said = capsys.readouterr().err
    assert "pipe is a socket, pipe or device" in said
    assert "sock is a socket, pipe or device" in said


def test_too_many_files_are_refused_with_what_to_do(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifests, "MAX_ENTRIES", 3)
    with pytest.raises(ValueError, match=r"more than 3 files: .*\.skyignore"):
        read_tree(str(tree))


def test_a_file_that_changes_while_it_is_read_is_an_error_not_a_damaged_tree(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.pread

    def changing(fd: int, size: int, at: int) -> bytes:
        with open(tree / "a.txt", "a") as file:
            file.write("more")
        return real(fd, size, at)

    monkeypatch.setattr(trees.os, "pread", changing)
    with pytest.raises(ValueError, match=r"a\.txt: it changes while it is read"):
        read_tree(str(tree))


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the files had been there for a while: what has just changed is not remembered."""
    monkeypatch.setattr(stat_cache, "SETTLED_S", -3600.0)


def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every file that is read from now on."""
    read: list[str] = []
    real = trees._digests

    def noted(path: str) -> tuple[os.stat_result, bytes]:
        read.append(os.path.basename(path))
        return real(path)

    monkeypatch.setattr(trees, "_digests", noted)
    return read


@pytest.mark.usefixtures("settled")
def test_what_nobody_touched_is_not_read_again(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = digest(tree)
    read = reads(monkeypatch)
    assert digest(tree) == before
    assert read == []
    times = (tree / "a.txt").stat()
    (tree / "a.txt").write_text("b")  # same size, and back to the same time
    os.utime(tree / "a.txt", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert digest(tree) != before
    assert read == ["a.txt"]


def test_what_changed_a_moment_ago_is_read_again(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest(tree)
    read = reads(monkeypatch)
    digest(tree)
    assert len(read) == 4


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("damage", [b"", b"{", b"[1]", b'{"a.txt": 7}'])
def test_a_damaged_cache_is_none(tree: Path, state_folder: Path, damage: bytes) -> None:
    before = digest(tree)
    (cache,) = (state_folder / "cache" / "files").iterdir()
    cache.write_bytes(damage)
    assert digest(tree) == before
