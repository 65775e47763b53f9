"""Trees of every shape, from a folder through the client's reading and the agent's placing: they arrive bit for bit,
twice. And chunks, whatever happens to the store."""

import os
import shutil
import stat
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from skyinfra.client.trees import Tree, read_tree
from skyinfra.runtime import chunks as chunk_store
from skyinfra.runtime.chunks import BadPack, Chunks
from skyinfra.runtime.files import Files
from skyinfra.runtime.protocol import FilesApply, FilesMissing
from skyinfra.runtime.tree import ARRIVING, CHUNK_BYTES
from skyinfra.testing import trees

NAMES = st.binary(min_size=1, max_size=12).filter(
    lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b"..", b".git", b".skyignore",
                                                                       b".gitignore", ARRIVING.encode())
)  # fmt: skip
FILES = st.tuples(st.just("f"), st.binary(max_size=300), st.integers(0, 0o777), st.integers(0, 2 * 10**18))
LINKS = st.tuples(st.just("l"), st.binary(min_size=1, max_size=20).filter(lambda target: b"\0" not in target))
FOLDERS = st.recursive(
    st.dictionaries(NAMES, FILES | LINKS, max_size=4),
    lambda inner: st.dictionaries(NAMES, FILES | LINKS | inner, max_size=4),
    max_leaves=12,
)


def make(folder, tree):
    """Write a drawn tree."""
    os.mkdir(folder)
    for name, what in tree.items():
        path = folder + b"/" + name
        if isinstance(what, dict):
            make(path, what)
        elif what[0] == "l":
            os.symlink(what[1], path)
        else:
            Path(os.fsdecode(path)).write_bytes(what[1])
            os.chmod(path, what[2] | 0o400)
            os.utime(path, ns=(what[3], what[3]))


def seen(folder):
    """Everything that a tree keeps, by name."""
    found = {}
    for root, folders, files in os.walk(folder):
        for name in folders + files:
            path = os.path.join(root, name)
            status = os.lstat(path)
            mode = stat.S_IMODE(status.st_mode)
            if stat.S_ISLNK(status.st_mode):
                found[os.path.relpath(path, folder)] = os.readlink(path)
            elif stat.S_ISDIR(status.st_mode):
                found[os.path.relpath(path, folder)] = mode
            else:
                found[os.path.relpath(path, folder)] = (Path(os.fsdecode(path)).read_bytes(), mode, status.st_mtime_ns)
    return found


def read(tree: Tree, digest: str) -> bytes:
    piece = tree.pieces[digest]
    with open(piece.path, "rb") as file:
        file.seek(piece.at)
        return file.read(piece.size)


def carry(source, files: Files, dest: str) -> int:
    """Send a folder to a node as client and server do; how many chunks that took."""
    tree = read_tree(os.fsdecode(source))
    wanted, sent = FilesApply(trees=[{"digest": tree.digest, "dest": dest, "kind": tree.kind}]), 0
    while (missing := files.apply(wanted)) != FilesMissing():
        for digest in missing.trees:
            tree.manifest.seek(0)
            writer = files.receive(digest)
            writer.write(tree.manifest.read())
            writer.commit()
        pack = files.chunks.receive()
        pack.write(trees.pack(read(tree, digest) for digest in missing.chunks))
        assert pack.close()
        sent += len(missing.chunks)
    tree.manifest.close()
    return sent


@pytest.fixture
def root():
    folder = tempfile.mkdtemp()
    yield os.fsencode(folder)
    shutil.rmtree(folder)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=FOLDERS, second=FOLDERS)
def test_every_tree_arrives_bit_for_bit_twice(first, second, monkeypatch):
    with tempfile.TemporaryDirectory() as folder:
        monkeypatch.setenv("SKYINFRA_HOME", folder + "/state")
        root = os.fsencode(folder)
        os.mkdir(root + b"/home")
        make(root + b"/first", first)
        make(root + b"/second", second)
        files = Files(folder + "/blobs", folder + "/home", absolute_paths=False)
        for _ in range(2):
            carry(root + b"/first", files, "~/there")
            assert seen(root + b"/home/there") == seen(root + b"/first")
        assert carry(root + b"/first", files, "~/there") == 0
        carry(root + b"/second", files, "~/there")
        after = seen(root + b"/home/there")
        assert {name: after.get(name) for name in seen(root + b"/second")} == seen(root + b"/second")


def test_a_full_disk_keeps_what_was_there(root, monkeypatch):
    files = Files(os.fsdecode(root + b"/blobs"), os.fsdecode(root), absolute_paths=False)
    monkeypatch.setenv("SKYINFRA_HOME", os.fsdecode(root + b"/state"))
    make(root + b"/source", {b"f": ("f", b"old", 0o644, 0)})
    carry(root + b"/source", files, "there")
    Path(os.fsdecode(root + b"/source/f")).write_bytes(b"new")

    def full(fd, data):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("skyinfra.runtime.disk.write_all", full)
        with pytest.raises(OSError, match="No space left"):
            carry(root + b"/source", files, "there")
    assert os.listdir(root + b"/there") == [b"f"]
    assert Path(os.fsdecode(root + b"/there/f")).read_bytes() == b"old"
    carry(root + b"/source", files, "there")
    assert Path(os.fsdecode(root + b"/there/f")).read_bytes() == b"new"


# --- the store ---


@pytest.fixture
def store(tmp_path):
    return Chunks(str(tmp_path / "chunks"))


def put(store, *contents, step=1000):
    raw, writer = trees.pack(contents), store.receive()
    for at in range(0, len(raw), step):
        writer.write(raw[at : at + step])
    return writer.close()


def get(store, content):
    digest = bytes.fromhex(trees.digest_of(content))
    places = store.locate([digest])
    return store.read(digest, places[digest]) if digest in places else None


@settings(max_examples=50, deadline=None)
@given(contents=st.lists(st.binary(min_size=1, max_size=200), min_size=1, max_size=20), cut=st.integers(0, 5000),
       step=st.integers(1, 300))  # fmt: skip
def test_of_a_pack_cut_anywhere_the_whole_chunks_are_there(contents, cut, step):
    raw = trees.pack(contents)[:cut]
    whole, at = [], 0
    for content in contents:
        at += len(trees.pack([content]))
        if at <= cut:
            whole.append(content)
    with tempfile.TemporaryDirectory() as folder:
        store = Chunks(folder + "/chunks")
        writer = store.receive()
        for start in range(0, len(raw), step):
            writer.write(raw[start : start + step])
        assert writer.close() == (len(raw) == len(trees.pack(whole)))
        for content in contents:
            assert get(store, content) == (content if content in whole else None)


def test_a_long_pack_becomes_several_and_the_oldest_can_go(store, monkeypatch):
    monkeypatch.setattr(chunk_store, "PACK_BYTES", 1000)
    contents = [bytes([n]) * 600 for n in range(6)]
    assert put(store, *contents, step=636)
    assert store.bytes_kept() == 6 * 636
    assert store.used_since(0.0) == {1, 2, 3}
    assert store.shrink(2 * 636, 0.0, spared={1}) == 2 * 636
    assert [get(store, content) is not None for content in contents] == [True, True, False, False, False, False]


def test_what_a_killed_process_left_half_written_is_used_as_far_as_it_is_whole(tmp_path):
    folder = tmp_path / "chunks"
    folder.mkdir()
    (folder / "abc.part").write_bytes(trees.pack([b"one", b"two"])[:-1])
    (folder / "7.pack").write_bytes(trees.pack([b"three"]) + b"rubbish" * 20)
    (folder / "8.pack").write_bytes(b"rubbish" * 20)
    store = Chunks(str(folder))
    assert [get(store, content) for content in (b"one", b"two", b"three")] == [b"one", None, b"three"]
    assert not (folder / "abc.part").exists()
    assert put(store, b"two")
    again = Chunks(str(folder))
    assert [get(again, content) for content in (b"one", b"two", b"three")] == [b"one", b"two", b"three"]


def test_a_chunk_that_is_too_long_or_wrong_is_refused(store):
    writer = store.receive()
    with pytest.raises(BadPack, match="at most"):
        writer.write(b"\0" * 32 + (CHUNK_BYTES + 1).to_bytes(4, "big"))
    writer.close()
    writer = store.receive()
    with pytest.raises(BadPack, match="is not what its digest"):
        writer.write(b"\0" * 32 + (1).to_bytes(4, "big") + b"x")
    writer.close()
    assert store.bytes_kept() == 0
