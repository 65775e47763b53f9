"""Trees that travel to the node: whole, in their place, or refused without a trace."""

import hashlib
import io
import os
import stat
import tarfile

import pytest


def tar_of(*entries):
    """(name, content or link target, keyword fields) → tar bytes."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content, fields in entries:
            info = tarfile.TarInfo(name)
            for field, value in fields.items():
                setattr(info, field, value)
            data = content if info.isreg() else b""
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def file(name, content=b"x", mode=0o644):
    return name, content, {"mode": mode}


def link(name, target, kind=tarfile.SYMTYPE):
    return name, b"", {"type": kind, "linkname": target}


def folder(name, mode=0o755):
    return name, b"", {"type": tarfile.DIRTYPE, "mode": mode}


def put(agent, raw, headers=None, digest=None):
    digest = digest or hashlib.sha256(raw).hexdigest()
    status, body = agent.call("PUT", f"/files/{digest}", raw, headers=headers)
    return digest, status, body


def apply(agent, digest, dest, kind="dir"):
    return agent.call("POST", "/files/apply", {"trees": [{"digest": digest, "dest": dest, "kind": kind}]})


def test_a_tree_arrives_with_modes_links_and_times(agent):
    raw = tar_of(
        folder("."),
        folder("bin", 0o750),
        ("bin/tool", b"#!/bin/sh\necho tool\n", {"mode": 0o755, "mtime": 1000000}),
        file("data/deep/file.txt", b"text", 0o600),
        link("bin/alias", "tool"),
        link("bin/hard", "bin/tool", tarfile.LNKTYPE),
    )
    digest, status, _ = put(agent, raw)
    assert status == 201
    assert apply(agent, digest, "~/tree")[0] == 200
    root = agent.home / "tree"
    assert (root / "bin/tool").stat().st_mtime == 1000000
    assert stat.S_IMODE((root / "bin/tool").stat().st_mode) == 0o755
    assert stat.S_IMODE((root / "data/deep/file.txt").stat().st_mode) == 0o600
    assert os.readlink(root / "bin/alias") == "tool"
    assert (root / "bin/hard").read_bytes() == (root / "bin/tool").read_bytes()
    assert agent.finish("~/tree/bin/alias")[1].endswith(b") tool\n")


def test_applying_again_replaces_and_leaves_strangers_alone(agent):
    digest, _, _ = put(agent, tar_of(file("a", b"new"), file("turns/into-a-folder", b"1")))
    root = agent.home / "again"
    root.mkdir()
    (root / "a").write_text("old")
    (root / "stranger").write_text("stays")
    (root / "turns").write_text("a file so far")
    for _ in range(2):
        assert apply(agent, digest, "again")[0] == 200
        assert sorted(os.listdir(root)) == ["a", "stranger", "turns"]
        assert (root / "a").read_text() == "new"


def test_an_old_link_in_the_way_is_replaced_and_not_followed(agent):
    outside = agent.root / "outside"
    outside.mkdir()
    root = agent.home / "haslink"
    root.mkdir()
    (root / "sub").symlink_to(outside)
    digest, _, _ = put(agent, tar_of(file("sub/file", b"inside")))
    assert apply(agent, digest, "haslink")[0] == 200
    assert (root / "sub/file").read_text() == "inside"
    assert os.listdir(outside) == []


def test_one_file_becomes_its_destination(agent):
    digest, _, _ = put(agent, tar_of(file("whatever", b"content", 0o640)))
    assert apply(agent, digest, "~/made/by/me.txt", "file")[0] == 200
    assert (agent.home / "made/by/me.txt").read_text() == "content"
    assert stat.S_IMODE((agent.home / "made/by/me.txt").stat().st_mode) == 0o640


@pytest.mark.parametrize(
    "bad",
    [
        file("../escape"),
        file("a/../../escape"),
        file("/etc/escape"),
        link("hard", "../../x", tarfile.LNKTYPE),
        ("dev", b"", {"type": tarfile.CHRTYPE}),
        ("fifo", b"", {"type": tarfile.FIFOTYPE}),
    ],
    ids=lambda entry: entry[0].replace("/", "_"),
)
def test_an_unsafe_tree_is_refused_before_anything_is_written(agent, bad):
    digest, _, _ = put(agent, tar_of(file("first"), bad))
    status, error = apply(agent, digest, "refused")
    assert (status, error["type"]) == (400, "unsafe_path")
    assert not (agent.home / "refused").exists()


def test_a_link_out_of_the_tree_arrives_as_it_is(agent):
    digest, _, _ = put(agent, tar_of(link("bin/python", "/usr/bin/python3"), link("up", "../..")))
    assert apply(agent, digest, "venv")[0] == 200
    assert os.readlink(agent.home / "venv/bin/python") == "/usr/bin/python3"
    assert os.readlink(agent.home / "venv/up") == "../.."


def test_a_hard_link_through_a_link_of_the_tree_is_refused(agent):
    digest, _, _ = put(agent, tar_of(link("l", "/etc"), link("stolen", "l/passwd", tarfile.LNKTYPE)))
    assert apply(agent, digest, "tree")[0] == 400
    assert not (agent.home / "tree/stolen").exists()


def test_a_tree_through_its_own_link_is_refused(agent):
    digest, _, _ = put(agent, tar_of(link("l", "dir"), file("l/file")))
    assert apply(agent, digest, "refused")[1]["type"] == "unsafe_path"


@pytest.mark.parametrize("dest", ["../x", "~/../x", "/tmp/skyinfra-never", "linked/x"])
def test_a_destination_outside_home_is_refused(agent, dest):
    if not (agent.home / "linked").exists():
        (agent.home / "linked").symlink_to("/tmp")
    digest, _, _ = put(agent, tar_of(file("a")))
    status, error = apply(agent, digest, dest)
    assert (status, error["type"]) == (400, "unsafe_path")


def test_absolute_destinations_are_allowed_when_the_agent_was_told_so(node):
    node.start(extra=["--absolute-paths"])
    digest, _, _ = put(node, tar_of(file("a")))
    assert apply(node, digest, str(node.root / "elsewhere"))[0] == 200
    assert (node.root / "elsewhere" / "a").exists()


def test_uploads_are_checked_against_their_digest(agent):
    raw = tar_of(file("checked"))
    _, status, error = put(agent, raw, digest="0" * 64)
    assert (status, error["type"]) == (422, "digest")
    assert agent.call("HEAD", "/files/" + "0" * 64)[0] == 404
    assert put(agent, raw, digest="nonsense")[1] == 400
    assert not [name for name in os.listdir(agent.state / "blobs") if name.endswith(".part")]


def test_an_upload_may_be_chunked_and_large_and_is_not_sent_twice(agent):
    raw = tar_of(file("big", os.urandom(3 << 20)))
    pieces = (raw[i : i + 100001] for i in range(0, len(raw), 100001))
    digest = hashlib.sha256(raw).hexdigest()
    assert agent.call("HEAD", f"/files/{digest}")[0] == 404
    conn = agent.connect()
    headers = {"Authorization": "Bearer t0ken-of-this-node"}
    conn.request("PUT", f"/v1/files/{digest}", pieces, headers, encode_chunked=True)
    assert conn.getresponse().status == 201
    conn.close()
    assert agent.call("HEAD", f"/files/{digest}")[0] == 200
    assert put(agent, raw)[1] == 200


def test_an_upload_that_breaks_off_leaves_nothing(agent):
    raw = tar_of(file("broken"))
    digest = hashlib.sha256(raw).hexdigest()
    conn = agent.connect()
    conn.putrequest("PUT", f"/v1/files/{digest}")
    conn.putheader("Authorization", "Bearer t0ken-of-this-node")
    conn.putheader("Content-Length", str(len(raw)))
    conn.endheaders(raw[:100])
    agent.until(lambda: any(n.startswith(digest) for n in os.listdir(agent.state / "blobs")))
    conn.close()
    agent.until(lambda: not any(n.startswith(digest) for n in os.listdir(agent.state / "blobs")))


def test_what_is_no_tar_or_was_never_sent_is_said(agent):
    digest, _, _ = put(agent, b"this is not a tar" * 100)
    assert apply(agent, digest, "x")[1]["type"] == "bad_request"
    status, error = apply(agent, "1" * 64, "x")
    assert (status, error["type"]) == (404, "not_found")
    assert agent.call("POST", "/files/apply", {"trees": [{"dest": "x"}]})[1]["message"] == "a tree needs digest"


def test_few_blobs_are_kept_after_they_were_applied(agent):
    for i in range(8):
        digest, _, _ = put(agent, tar_of(file(f"n{i}")))
        assert apply(agent, digest, "kept")[0] == 200
    assert len(os.listdir(agent.state / "blobs")) == 4
    assert agent.call("HEAD", f"/files/{digest}")[0] == 200
