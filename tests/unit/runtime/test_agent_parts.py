"""The small parts: records, processes, the package, the schema, tails, what a tree may hold."""

import concurrent.futures
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import jsonschema
import pytest

from skyinfra.runtime import disk, kill, logs, package, procs, schema
from skyinfra.runtime.protocol import JobSubmit


def test_of_several_claimants_one_wins_and_its_record_stays(tmp_path):
    path = str(tmp_path / "record.json")
    assert disk.claim_json(path, {"pid": 1})
    assert not disk.claim_json(path, {"pid": 2})
    assert disk.read_json(path) == {"pid": 1}
    assert os.listdir(tmp_path) == ["record.json"]


def test_a_record_that_is_missing_or_torn_reads_as_none(tmp_path):
    assert disk.read_json(str(tmp_path / "none")) is None
    (tmp_path / "torn").write_text('{"pid": 1')
    assert disk.read_json(str(tmp_path / "torn")) is None
    (tmp_path / "list").write_text("[]")
    assert disk.read_json(str(tmp_path / "list")) is None


def test_a_private_folder_is_made_private_again(tmp_path):
    folder = tmp_path / "f"
    folder.mkdir(mode=0o755)
    disk.private_folder(str(folder))
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_process_is_known_by_its_start_and_not_by_its_pid():
    seen = procs.read_stat(os.getpid())
    assert (seen.pid, seen.ppid, seen.sid) == (os.getpid(), os.getppid(), os.getsid(0))
    assert procs.alive(seen.pid, seen.start_ticks)
    assert not procs.alive(seen.pid, seen.start_ticks + 1)
    assert not procs.send_signal(seen.pid, seen.start_ticks + 1, signal.SIGKILL)
    assert not procs.alive(0, 0)


def test_a_name_with_parentheses_does_not_confuse_the_reading(tmp_path):
    odd = tmp_path / "a) (b"
    odd.symlink_to(sys.executable)
    with subprocess.Popen([str(odd), "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert procs.read_stat(child.pid).ppid == os.getpid()
        assert child.pid in procs.family([os.getpid()], procs.snapshot())
        child.stdin.close()


def test_a_zombie_is_dead():
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    ticks = procs.start_ticks(pid)
    while procs.read_stat(pid).state != "Z":
        pass
    assert not procs.alive(pid, ticks)
    os.waitpid(pid, 0)


def test_status_and_kill_of_a_folder_that_never_was(tmp_path):
    assert kill.status(str(tmp_path / "none")) == {"pid": 0, "alive": False}
    assert kill.kill(str(tmp_path / "none"), 1.0) == {"killed": 0, "left": []}


def test_a_record_of_another_boot_of_the_machine_is_of_the_dead(tmp_path):
    disk.replace_json(str(tmp_path / "agent.json"), dict(procs.identity(), boot_id="another"))
    assert kill.status(str(tmp_path))["alive"] is False
    assert kill.kill(str(tmp_path), 0.1) == {"killed": 0, "left": []}


def test_the_package_is_the_same_bytes_each_time_and_small(tmp_path):
    one, two = package.build(tmp_path / "one"), package.build(tmp_path / "two")
    assert one.read_bytes() == two.read_bytes()
    assert one.name == f"agent-{package.agent_version()}.pyz" == two.name
    assert one.stat().st_size < 300 * 1024
    stamp = one.stat().st_mtime_ns
    assert package.build(tmp_path / "one") == one
    assert one.stat().st_mtime_ns == stamp
    assert os.listdir(tmp_path / "one") == [one.name]


def test_the_version_follows_the_sources(monkeypatch):
    before = package.agent_version()
    sources = package._sources()
    monkeypatch.setattr(package, "_sources", lambda: {**sources, "more.py": b""})
    assert package.agent_version() != before


def test_the_committed_schema_is_current():
    assert Path(schema.path()).read_text() == schema.text()
    jsonschema.Draft202012Validator.check_schema(schema.document())


def test_what_a_peer_sends_is_checked_by_field():
    assert schema.checked(JobSubmit, {"key": "k", "run": None, "new": 1}) == JobSubmit("k", None)
    for body, said in [
        ({"key": "k"}, "run is missing"),
        ({"key": True, "run": ""}, "key must be"),
        ({"key": "k", "run": "", "ranks": [1]}, "ranks must be"),
        ({"key": "k", "run": "", "demand": {"cpus": True}}, "demand must be"),
    ]:
        with pytest.raises(ValueError, match=said):
            schema.checked(JobSubmit, body)


@pytest.mark.parametrize(
    "text", [b"", b"\n", b"one", b"one\n", b"1\n2\n3\n", b"1\n2\n3", b"\n\n\n", b"x" * 700000 + b"\ny\n"]
)
def test_a_tail_begins_at_the_nth_line_from_the_end(tmp_path, text):
    path = tmp_path / "log"
    path.write_bytes(text)
    lines = [line + b"\n" for line in text.split(b"\n")]
    lines[-1] = lines[-1][:-1]
    lines = [line for line in lines if line]
    for count in range(1, 6):
        assert text[logs.tail_offset(str(path), count) :] == b"".join(lines[-count:])
    assert logs.tail_offset(str(path), 0) == len(text)
    assert logs.tail_offset(str(tmp_path / "none"), 3) == 0


def test_threads_that_build_the_same_agent_at_once_all_get_it(tmp_path):
    """As the nodes of one cluster do, whose machines are made side by side."""
    ready = threading.Barrier(8)

    def build(_):
        ready.wait()
        return package.build(tmp_path / "cache")

    for _ in range(5):
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            [made] = set(pool.map(build, range(8)))
        assert [path.name for path in (tmp_path / "cache").iterdir()] == [made.name]
        made.unlink()
