"""Retention, uploads, documents that must be current, and names that must be listed."""

import asyncio
import io
import os
import re
import sqlite3
import tarfile
from pathlib import Path

import pytest

from skyinfra.model.home import Home
from skyinfra.server import app
from skyinfra.server.answers import HttpError
from skyinfra.server.blobs import Blobs, Limits
from skyinfra.server.fleet.doctor import examine
from skyinfra.server.requests.retention import clean
from skyinfra.server.requests.ring import Answer, ReadRing
from skyinfra.server.requests.steps import boundary_base
from skyinfra.server.settings import Settings
from skyinfra.store import schema
from skyinfra.testing import trees
from skyinfra.wire import schema as wire_schema

SOURCES = Path(schema.__file__).parents[1]
ROOT = SOURCES.parent


def test_the_committed_openapi_document_is_current():
    assert (ROOT / "docs" / "openapi.json").read_text() == app.rendered(), (
        "write it with: python -m skyinfra.server.openapi docs/openapi.json"
    )


def test_the_committed_schema_of_the_wire_is_current():
    assert wire_schema.SCHEMA_FILE.read_text() == wire_schema.rendered(), (
        "write it with: python -m skyinfra.wire.schema"
    )


def test_every_step_of_every_handler_has_its_boundaries():
    text = "".join(path.read_text() for path in (SOURCES / "server" / "fleet").glob("*.py"))
    used = set(re.findall(r'Step\(f?"([a-z]+)', text))
    from skyinfra.server.requests.steps import STEPS

    listed = {base.rpartition(".")[2] for bases in STEPS.values() for base in bases}
    assert used == listed
    with pytest.raises(KeyError):
        boundary_base("launch", "unheard_of")
    assert boundary_base("launch", "place#3") == "request.launch.place"


def finished(bench, engine, count):
    async def go():
        ids = []
        for _ in range(count):
            ids.append(await engine.accept(bench.incoming("launch")))
            await engine.wait(ids[-1], 5)
        return ids

    return go()


def test_old_requests_are_forgotten_and_active_ones_never(bench, run, make_handler, tmp_path):
    gate = asyncio.Event()

    async def wait(ctx, prior):
        if ctx.cluster_name == "active":
            await gate.wait()
        return {}

    async def scenario():
        engine = await bench.engine(make_handler("launch", bench.steps("one", one=wait)))
        active = await engine.accept(bench.incoming("launch", cluster="active", blobs=("d" * 64,)))
        ids = await finished(bench, engine, 3)
        blobs = blobs_in(tmp_path)
        for name in ("d" * 64, "e" * 64):
            blobs.path(name).write_bytes(b"x")
            os.utime(blobs.path(name), (1, 1))
        now = (await bench.row(active)).created_at
        sizes = engine._logs.sizes()
        limit = sum(sizes.values()) - sizes[ids[0]]
        settings = Settings(Home(bench.root), retention_bytes=limit)
        assert await clean(settings, bench.db, engine._logs, blobs, now) == [ids[0]]
        assert [p.name for p in (tmp_path / "blobs").iterdir()] == ["d" * 64], "an active request needs it"
        gone = await clean(settings, bench.db, engine._logs, blobs, now + 31 * 86400)
        assert sorted(gone) == sorted(ids[1:])
        assert (await bench.row(active)).status == "RUNNING"
        assert set(engine._logs.sizes()) == {active}
        gate.set()
        await engine.wait(active, 5)

    run(scenario())


def test_an_upload_with_another_digest_leaves_nothing(tmp_path, run):
    raw = trees.manifest(trees.file("a", b"abc"))

    async def chunks():
        yield raw

    blobs = blobs_in(tmp_path)
    with pytest.raises(HttpError) as caught:
        run(blobs.put("0" * 64, chunks()))
    assert caught.value.status == 422
    assert list((tmp_path / "blobs").iterdir()) == []
    assert run(blobs.put(trees.digest_of(raw), chunks())) is True


def test_only_chunks_that_nobody_needs_make_room(tmp_path, run):
    wanted = set()

    async def scenario():
        blobs = blobs_in(tmp_path, Limits(store_bytes=2900), wanted)
        for content in (b"needed" * 100, b"spared" * 100, b"idle" * 100):
            raw = trees.manifest(trees.file("f", content))
            await blobs.put(trees.digest_of(raw), once(raw))
            pack = trees.pack([content])
            await blobs.put_pack(once(pack), len(pack))
            if content.startswith(b"needed"):
                wanted.add(trees.digest_of(raw))
        age_packs(tmp_path / "chunks", keep=2)
        pack = trees.pack([b"new" * 500])
        await blobs.put_pack(once(pack), len(pack))
        there = [content for content in (b"needed" * 100, b"spared" * 100, b"idle" * 100)
                 if blobs.missing(trees.digest_of(trees.manifest(trees.file("f", content)))) == []]  # fmt: skip
        assert there == [b"needed" * 100, b"spared" * 100]

    run(scenario())


async def once(raw):
    yield raw


def age_packs(folder, keep):
    """As if all packs but one had been used last a day ago."""
    with sqlite3.connect(folder / "index.db") as db:
        db.execute("UPDATE packs SET used = used - 86400 WHERE id != ?", (keep,))


def blobs_in(folder, limits=None, wanted=()):
    async def needed():
        return set(wanted)

    return Blobs(folder / "blobs", folder / "chunks", limits or Limits(), needed)


def test_the_ring_of_answers_is_bounded():
    ring = ReadRing(entries=3, size=25)
    for n in range(6):
        ring.put(f"id{n}", Answer("status", "u1", "me", 0.0, "SUCCEEDED", b"x" * 10))
    assert [ring.get(f"id{n}") is not None for n in range(6)] == [False] * 4 + [True] * 2
    assert ring.get("id") is None, "not unique"
    assert ring.get("") is None


def test_doctor_names_what_nobody_owns(tmp_path):
    home = Home(tmp_path)
    row = type("Row", (), {"stack": "c-123456", "name": "c", "nodes": []})
    (home.nodes / "c-123456-0-0").mkdir(parents=True)
    (home.nodes / "lost-abcdef-0-0").mkdir()
    stacks = home.backend / ".pulumi" / "stacks" / "skyinfra"
    stacks.mkdir(parents=True)
    (stacks / "lost-abcdef.json").write_text("{}")
    entries = examine(home, [row], [], {("default", "c"): ["r1", "r2"]})
    owners = {(e["kind"], e["id"]): e["owner"] for e in entries}
    assert owners == {
        ("node", "c-123456-0-0"): "cluster:c",
        ("node", "lost-abcdef-0-0"): None,
        ("stack", "lost-abcdef"): None,
        ("lane", "default/c"): "request:r1",
    }


def test_the_tar_of_an_older_client_becomes_a_tree(tmp_path, run):
    def tar_of(*members):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as tar:
            for name, content, kind in members:
                info = tarfile.TarInfo(name)
                info.type, info.mtime, info.mode = kind, 315532800, 0o640
                info.size = len(content) if kind == tarfile.REGTYPE else 0
                info.linkname = content.decode() if kind == tarfile.SYMTYPE else ""
                tar.addfile(info, io.BytesIO(content))
        return out.getvalue()

    good = [("d", b"", tarfile.DIRTYPE), ("d/f", b"content", tarfile.REGTYPE), ("l", b"d/f", tarfile.SYMTYPE)]
    blobs = blobs_in(tmp_path)
    raw = tar_of(*good)
    digest = trees.digest_of(raw)
    assert run(blobs.put(digest, once(raw))) is True
    became = trees.manifest(
        trees.folder("d", 0o640),
        trees.file("d/f", b"content", 0o640, mtime_ns=315532800 * 10**9),
        trees.link("l", "d/f"),
    )
    assert blobs.tree_of(digest) == trees.digest_of(became)
    assert blobs.path(blobs.tree_of(digest)).read_bytes() == became
    assert blobs.missing(blobs.tree_of(digest)) == []
    assert blobs.collect({digest}, 0.0, now=2e9) == 0, "what it became is needed, too"
    for bad in (("../out", b"x", tarfile.REGTYPE), ("dev", b"", tarfile.CHRTYPE)):
        raw = tar_of(bad)
        with pytest.raises(HttpError) as caught:
            run(blobs.put(trees.digest_of(raw), once(raw)))
        assert caught.value.status == 422
