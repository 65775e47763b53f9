"""Trees that travel to the node: whole, in their place, or refused without a trace."""

import json
import os
import stat

import pytest

from skyinfra.testing import trees
from skyinfra.testing.trees import digest_of, file, folder, link

CHUNK = 4 << 20


def put_manifest(agent, *entries):
    raw = trees.manifest(*entries)
    digest = digest_of(raw)
    status, body = agent.call("PUT", f"/files/{digest}", raw)
    assert status in (200, 201), body
    return digest


def put_pack(agent, *contents):
    status, body = agent.call("POST", "/files", trees.pack(contents))
    assert status == 201, body


def apply(agent, digest, dest, kind="dir"):
    return agent.call("POST", "/files/apply", {"trees": [{"digest": digest, "dest": dest, "kind": kind}]})


def send(agent, dest, *entries, contents=(), kind="dir"):
    """All of it, in place."""
    digest = put_manifest(agent, *entries)
    if contents:
        put_pack(agent, *contents)
    status, body = apply(agent, digest, dest, kind)
    assert (status, body) == (200, {"trees": [], "chunks": []})
    return digest


def test_a_tree_arrives_with_modes_links_and_times(agent):
    tool = b"#!/bin/sh\necho tool\n"
    send(
        agent,
        "~/tree",
        folder("bin", 0o750),
        folder("data"),
        folder("empty", 0o700),
        file("bin/tool", tool, 0o755, mtime_ns=1_000_000_123_456_789),
        link("bin/alias", "tool"),
        folder("data/deep"),
        file("data/deep/file.txt", b"text", 0o600),
        file("nothing", b""),
        contents=[tool, b"text"],
    )
    root = agent.home / "tree"
    assert (root / "bin/tool").stat().st_mtime_ns == 1_000_000_123_456_789
    assert stat.S_IMODE((root / "bin/tool").stat().st_mode) == 0o755
    assert stat.S_IMODE((root / "bin").stat().st_mode) == 0o750
    assert stat.S_IMODE((root / "data/deep/file.txt").stat().st_mode) == 0o600
    assert os.readlink(root / "bin/alias") == "tool"
    assert (os.listdir(root / "empty"), (root / "nothing").read_bytes()) == ([], b"")
    assert agent.finish("~/tree/bin/alias")[1].endswith(b") tool\n")


def test_what_is_missing_is_said_before_anything_is_written(agent):
    raw = trees.manifest(folder("d"), file("d/a", b"said"), file("b", b"said"), file("c", b"unsaid"))
    digest = digest_of(raw)
    assert apply(agent, digest, "said")[1] == {"trees": [digest], "chunks": []}
    assert agent.call("HEAD", f"/files/{digest}")[0] == 404
    assert agent.call("PUT", f"/files/{digest}", raw)[0] == 201
    assert agent.call("PUT", f"/files/{digest}", raw)[0] == 200
    assert agent.call("HEAD", f"/files/{digest}")[0] == 200
    assert apply(agent, digest, "said")[1]["chunks"] == [digest_of(b"said"), digest_of(b"unsaid")]
    put_pack(agent, b"said")
    assert apply(agent, digest, "said")[1]["chunks"] == [digest_of(b"unsaid")]
    assert not (agent.home / "said").exists()
    put_pack(agent, b"unsaid")
    assert apply(agent, digest, "said")[1] == {"trees": [], "chunks": []}
    assert (agent.home / "said/d/a").read_bytes() == b"said"


def test_a_file_that_stands_as_it_was_left_is_neither_asked_for_nor_written_again(agent):
    entries = [file("kept", b"kept for good"), file("touched", b"as it came"), file("gone", b"to be removed")]
    digest = send(agent, "stands", *entries, contents=[b"kept for good", b"as it came", b"to be removed"])
    root = agent.home / "stands"
    before = (root / "kept").stat()
    assert apply(agent, digest, "stands")[1]["chunks"] == []
    (root / "touched").write_bytes(b"AS IT CAME")  # same size, and even the same time
    os.utime(root / "touched", ns=(10**18, 10**18))
    (root / "gone").unlink()
    wanted = [digest_of(b"as it came"), digest_of(b"to be removed")]
    assert apply(agent, digest, "stands")[1]["chunks"] == wanted
    put_pack(agent, b"as it came", b"to be removed")
    assert apply(agent, digest, "stands")[1]["chunks"] == []
    assert (root / "touched").read_bytes() == b"as it came"
    assert (root / "gone").read_bytes() == b"to be removed"
    assert ((root / "kept").stat().st_ino, (root / "kept").stat().st_ctime_ns) == (before.st_ino, before.st_ctime_ns)


def test_mode_and_time_change_without_the_content(agent):
    send(agent, "modes", file("f", b"content of f"), contents=[b"content of f"])
    inode = (agent.home / "modes/f").stat().st_ino
    send(agent, "modes", file("f", b"content of f", 0o700, mtime_ns=5))
    after = (agent.home / "modes/f").stat()
    assert (after.st_ino, after.st_mode & 0o777, after.st_mtime_ns) == (inode, 0o700, 5)


def test_of_a_big_file_only_the_changed_chunk_is_asked_for(agent):
    old = os.urandom(2 * CHUNK + 100)
    send(agent, "big", file("f", old), contents=[old])
    new = old[:CHUNK] + os.urandom(CHUNK) + old[2 * CHUNK :]
    digest = put_manifest(agent, file("f", new))
    changed = new[CHUNK : 2 * CHUNK]
    assert apply(agent, digest, "big")[1]["chunks"] == [digest_of(changed)]
    put_pack(agent, changed)
    assert apply(agent, digest, "big")[1]["chunks"] == []
    assert (agent.home / "big/f").read_bytes() == new


def test_a_hole_stays_a_hole(agent):
    send(agent, "holes", file("f", bytes(3 * CHUNK)), contents=[bytes(CHUNK)])
    found = (agent.home / "holes/f").stat()
    assert (found.st_size, found.st_blocks) == (3 * CHUNK, 0)


def test_applying_again_replaces_and_leaves_strangers_alone(agent):
    root = agent.home / "again"
    root.mkdir()
    (root / "a").write_text("old")
    (root / "stranger").write_text("stays")
    (root / "turns").write_text("a file so far")
    entries = [file("a", b"new"), folder("turns"), file("turns/into-a-folder", b"1")]
    for _ in range(2):
        send(agent, "again", *entries, contents=[b"new", b"1"])
        assert sorted(os.listdir(root)) == ["a", "stranger", "turns"]
        assert (root / "a").read_text() == "new"


def test_an_old_link_in_the_way_is_replaced_and_not_followed(agent):
    outside = agent.root / "outside"
    outside.mkdir()
    root = agent.home / "haslink"
    root.mkdir()
    (root / "sub").symlink_to(outside)
    (root / "f").symlink_to(outside / "f")
    send(agent, "haslink", folder("sub"), file("f", b"inside"), file("sub/file", b"inside"), contents=[b"inside"])
    assert (root / "sub/file").read_text() == (root / "f").read_text() == "inside"
    assert os.listdir(outside) == []


def test_one_file_becomes_its_destination(agent):
    send(agent, "~/made/by/me.txt", file("whatever", b"content", 0o640), contents=[b"content"], kind="file")
    assert (agent.home / "made/by/me.txt").read_text() == "content"
    assert stat.S_IMODE((agent.home / "made/by/me.txt").stat().st_mode) == 0o640


@pytest.mark.parametrize(("dest", "kind"), [("taken", "file"), ("~", "file"), ("file", "dir"), ("file/below", "dir")])
def test_a_destination_of_the_other_kind_is_refused_and_stays(agent, dest, kind):
    (agent.home / "taken").mkdir(exist_ok=True)
    (agent.home / "taken" / "precious").touch()
    (agent.home / "file").write_text("precious")
    digest = put_manifest(agent, file("f", b"of the other kind"))
    put_pack(agent, b"of the other kind")
    status, error = apply(agent, digest, dest, kind)
    assert (status, error["type"]) == (400, "bad_request")
    assert ("is a folder on the node" if kind == "file" else "a file on the node") in error["message"]
    assert (agent.home / "taken/precious").exists()
    assert (agent.home / "file").read_text() == "precious"


@pytest.mark.parametrize(
    "bad",
    [
        [file("../escape")],
        [folder("a"), file("a/../../escape")],
        [file("/etc/escape")],
        [link("l", "dir"), file("l/file")],
        [folder("l"), link("l", "/etc"), file("l/file")],
        [link("l", "/etc"), folder("l"), file("l/file")],
        [file("no-such-folder/file")],
        [file("a//b")],
        [file("./b")],
        [file(".skyinfra-arriving")],
    ],
    ids=["up", "up-and-out", "absolute", "through-a-link", "folder-then-link", "link-then-folder", "orphan", "empty",
         "dot", "our-own-name"],
)  # fmt: skip
def test_an_unsafe_tree_is_refused_before_anything_is_written(agent, bad):
    digest = put_manifest(agent, file("first", b"x"), *bad)
    put_pack(agent, b"x")
    status, error = apply(agent, digest, "refused")
    assert (status, error["type"]) == (400, "unsafe_path")
    assert not (agent.home / "refused").exists()


@pytest.mark.parametrize(
    "line",
    [
        b"nonsense\n",
        b"[]\n",
        b'["f","a",420,0,5]\n',
        b'["f","a",420,0,5,""]\n',
        b'["f","a",420,0,-1,""]\n',
        b'["f","a",420,0,0,"zz"]\n',
        b'["f","a",4095,0,0,""]\n',
        b'["f","a\\u0000",420,0,0,""]\n',
        b'["f","\\ud800",420,0,0,""]\n',
        b'["f",7,420,0,0,""]\n',
        b'["c","null",420]\n',
        b"[" * 100000 + b"\n",
    ],
)
def test_a_line_that_is_none_is_named(agent, line):
    raw = trees.manifest() + line
    digest = digest_of(raw)
    assert agent.call("PUT", f"/files/{digest}", raw)[0] in (200, 201)
    status, error = apply(agent, digest, "refused")
    assert (status, error["type"]) == (400, "bad_request")
    assert "line 2 of the manifest" in error["message"]


def test_what_is_no_manifest_or_of_a_later_version_is_said(agent):
    for raw, said in ((b"this is not a manifest", "not the manifest"), (b'{"tree": 2}\n', "version 2")):
        digest = digest_of(raw)
        agent.call("PUT", f"/files/{digest}", raw)
        assert said in apply(agent, digest, "x")[1]["message"]
    assert agent.call("POST", "/files/apply", {"trees": [{"dest": "x"}]})[1]["message"] == "a tree needs digest"
    assert apply(agent, "nonsense", "x")[1]["type"] == "bad_request"
    two = put_manifest(agent, file("a", b""), file("b", b""))
    assert "holds one file" in apply(agent, two, "x", "file")[1]["message"]


def test_links_arrive_as_they_are_wherever_they_point(agent):
    send(
        agent, "venv", folder("bin"), link("bin/python", "/usr/bin/python3"), link("up", "../.."), link("dead", "none")
    )
    assert os.readlink(agent.home / "venv/bin/python") == "/usr/bin/python3"
    assert os.readlink(agent.home / "venv/up") == "../.."
    assert os.readlink(agent.home / "venv/dead") == "none"


def test_names_that_are_no_utf8_arrive(agent):
    name = os.fsdecode(b"\xff\xfe name\n")
    digest = send(agent, "odd", folder(name), file(name + "/" + name, b"odd"), contents=[b"odd"])
    assert os.listdir(os.fsencode(agent.home / "odd")) == [b"\xff\xfe name\n"]
    assert apply(agent, digest, "odd")[1]["chunks"] == []


@pytest.mark.parametrize("dest", ["../x", "~/../x", "/tmp/skyinfra-never", "linked/x", "a\0b"])
def test_a_destination_outside_home_is_refused(agent, dest):
    if not (agent.home / "linked").exists():
        (agent.home / "linked").symlink_to("/tmp")
    status, error = apply(agent, put_manifest(agent, file("a", b"")), dest)
    assert (status, error["type"]) == (400, "unsafe_path")


def test_absolute_destinations_are_allowed_when_the_agent_was_told_so(node):
    node.start(extra=["--absolute-paths"])
    send(node, str(node.root / "elsewhere"), file("a", b""))
    assert (node.root / "elsewhere" / "a").exists()


def test_uploads_are_checked_against_their_digests(agent):
    status, error = agent.call("PUT", "/files/" + "0" * 64, trees.manifest())
    assert (status, error["type"]) == (422, "digest")
    assert agent.call("HEAD", "/files/" + "0" * 64)[0] == 404
    good, bad = trees.pack([b"a good one"]), bytearray(trees.pack([b"a bad one"]))
    bad[-1] ^= 1
    status, error = agent.call("POST", "/files", good + bytes(bad) + trees.pack([b"after it"]))
    assert (status, error["type"]) == (422, "digest")
    digest = put_manifest(agent, file("a", b"a good one"), file("b", b"after it"))
    assert apply(agent, digest, "checked")[1]["chunks"] == [digest_of(b"after it")]
    assert agent.call("POST", "/files", b"\0" * 32 + b"\xff" * 100)[0] == 422
    assert agent.call("POST", "/files", good[:-1])[1]["type"] == "bad_request"
    assert not [name for name in os.listdir(agent.state / "blobs" / "chunks") if name.endswith(".part")]


def test_a_pack_may_be_chunked_and_large(agent):
    content = os.urandom(CHUNK + 5)
    raw = trees.pack([content])
    pieces = (raw[i : i + 100001] for i in range(0, len(raw), 100001))
    conn = agent.connect()
    conn.request("POST", "/v1/files", pieces, {"Authorization": "Bearer t0ken-of-this-node"}, encode_chunked=True)
    assert conn.getresponse().status == 201
    conn.close()
    assert apply(agent, put_manifest(agent, file("f", content)), "large")[1]["chunks"] == []


def test_of_a_transfer_that_breaks_off_whole_chunks_are_kept(agent):
    raw = trees.pack([b"first of a broken one", b"second of a broken one"])
    conn = agent.connect()
    conn.putrequest("POST", "/v1/files")
    conn.putheader("Authorization", "Bearer t0ken-of-this-node")
    conn.putheader("Content-Length", str(len(raw)))
    conn.endheaders(raw[:-3])
    conn.close()
    digest = put_manifest(agent, file("a", b"first of a broken one"), file("b", b"second of a broken one"))
    agent.until(lambda: apply(agent, digest, "broken")[1]["chunks"] == [digest_of(b"second of a broken one")])


@pytest.mark.parametrize("point", ["before", "made", "recorded"])
def test_an_agent_killed_as_it_keeps_a_pack_loses_no_whole_chunk(node, point):
    node.start(faults=True)
    digest = put_manifest(node, file("f", b"content"))
    node.arm(f"chunks.pack.{point}")
    raw = trees.pack([b"content"])
    conn = node.connect()
    conn.request("POST", "/v1/files", raw, {"Authorization": "Bearer t0ken-of-this-node"})
    node.reached(f"chunks.pack.{point}")
    node.crash()
    conn.close()
    node.start(generation=2)
    assert apply(node, digest, "killed")[1] == {"trees": [], "chunks": []}
    assert (node.home / "killed/f").read_bytes() == b"content"


@pytest.mark.parametrize("point", ["before", "made", "recorded"])
def test_an_agent_killed_as_it_places_a_tree_finishes_the_next_time(node, point):
    node.start(faults=True)
    digest = put_manifest(node, folder("d"), file("d/f", b"content"), link("l", "d/f"))
    put_pack(node, b"content")
    node.arm(f"agent.apply.{point}")
    conn = node.connect()
    body = json.dumps({"trees": [{"digest": digest, "dest": "killed", "kind": "dir"}]})
    conn.request("POST", "/v1/files/apply", body, {"Authorization": "Bearer t0ken-of-this-node"})
    node.reached(f"agent.apply.{point}")
    node.crash()
    conn.close()
    node.start(generation=2)
    assert apply(node, digest, "killed")[1] == {"trees": [], "chunks": []}
    assert (node.home / "killed/l").read_bytes() == b"content"
    assert sorted(os.listdir(node.home / "killed")) == ["d", "l"]


def test_a_pack_that_was_damaged_on_the_disk_is_asked_for_again(node):
    node.start()
    digest = put_manifest(node, file("f", b"good content"))
    put_pack(node, b"good content")
    node.crash()
    (pack,) = (node.state / "blobs" / "chunks").glob("*.pack")
    raw = bytearray(pack.read_bytes())
    raw[-1] ^= 1
    pack.write_bytes(raw)
    node.start(generation=2)
    assert apply(node, digest, "damaged")[1]["chunks"] == [digest_of(b"good content")]
    put_pack(node, b"good content")
    assert apply(node, digest, "damaged")[1]["chunks"] == []
    assert (node.home / "damaged/f").read_bytes() == b"good content"


@pytest.mark.parametrize("name", ["placed.db", "chunks/index.db"])
def test_a_damaged_index_costs_time_and_nothing_else(node, name):
    node.start()
    digest = send(node, "tree", file("f", b"content"), contents=[b"content"])
    put_pack(node, b"waiting")
    node.crash()
    for path in (node.state / "blobs").glob(name + "*"):
        path.write_bytes(b"damaged" * 1000)
    node.start(generation=2)
    waiting = put_manifest(node, file("w", b"waiting"))
    assert apply(node, waiting, "tree")[1]["chunks"] == []
    if apply(node, digest, "tree")[1]["chunks"]:
        put_pack(node, b"content")
    assert apply(node, digest, "tree")[1]["chunks"] == []


def test_little_is_kept_after_it_was_applied(agent):
    for i in range(12):
        digest = send(agent, "kept", file(f"n{i}", b"kept %d" % i), contents=[b"kept %d" % i])
    manifests = [name for name in os.listdir(agent.state / "blobs") if len(name) == 64]
    assert len(manifests) <= 8
    assert digest in manifests
    entry = file("n11", b"kept 11")
    assert apply(agent, put_manifest(agent, entry), "elsewhere")[1]["chunks"] == [digest_of(b"kept 11")]
