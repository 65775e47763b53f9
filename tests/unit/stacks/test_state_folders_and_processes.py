"""The engine's files, the operation folder, the engine's executable, process identities."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys

import pytest

from skyinfra.stacks import engine, processes, seize
from skyinfra.stacks.backend import FileBackend, StateUnreadable, open_backend
from skyinfra.stacks.files import read_json, write_json
from skyinfra.stacks.folder import EventLog, OperationFolder
from skyinfra.stacks.launcher import worker_env
from skyinfra.stacks.operation import OperationEvent, OperationRequest, OperationResult
from skyinfra.stacks.settings import BadSetting, load_settings
from skyinfra.stacks.workspace import engine_env, prepare_home, write_project

STACK = "c-abcdef"


def checkpoint(nodes):
    resources = [{"type": "pulumi:pulumi:Stack", "urn": "u", "outputs": {"nodes": nodes}}]
    latest = {"resources": resources, "secrets_providers": {"type": "passphrase", "state": {"salt": "v1:abc"}}}
    return json.dumps({"version": 3, "checkpoint": {"latest": latest}})


@pytest.fixture
def backend(tmp_path):
    backend = FileBackend(tmp_path)
    backend.checkpoint(STACK).parent.mkdir(parents=True)
    return backend


def test_a_checkpoint_gives_nodes_and_what_seals_it_and_none_is_no_stack(backend):
    assert backend.load(STACK) is None
    backend.checkpoint(STACK).write_text(checkpoint([{"slot": 0}]))
    state = backend.load(STACK)
    assert (state.nodes, state.secrets_provider["state"]) == ([{"slot": 0}], {"salt": "v1:abc"})
    backend.checkpoint(STACK).write_text(checkpoint("04da6b54-80e4-46f7-96ec-b56ff0331ba9"))
    assert backend.load(STACK).nodes == []


TORN = ["", "\0\0\0", "{", "[]", '{"version": 3}', '{"checkpoint": {"latest": 3}}']


@pytest.mark.parametrize("text", TORN)
def test_a_torn_checkpoint_is_restored_from_the_one_before_and_kept(backend, text):
    path = backend.checkpoint(STACK)
    path.write_text(text)
    with pytest.raises(StateUnreadable):
        backend.load(STACK)
    path.with_suffix(".json.bak").write_text(checkpoint([]))
    assert backend.restore_previous(STACK) == f"{backend.key(STACK)}.bak"
    assert path.with_suffix(".json.corrupt").read_text() == text
    assert backend.load(STACK).nodes == []


def test_attributes_that_a_killed_engine_wrote_half_are_removed_and_whole_ones_stay(backend, tmp_path):
    beside = backend.checkpoint(STACK).with_suffix(".json.attrs")
    other = beside.with_name("other-abcdef.json.attrs")
    whole = tmp_path / ".pulumi" / "meta.yaml.attrs"
    for path, text in ((beside, ""), (other, ""), (whole, "{}")):
        path.write_text(text)
    assert backend.mend(STACK) == [f"{backend.key(STACK)}.attrs"]
    assert (beside.exists(), other.exists(), whole.exists()) == (False, True, True)
    assert backend.mend(STACK) == []


@pytest.mark.parametrize("text", TORN)
def test_without_a_readable_bak_the_checkpoint_of_the_last_update_counts_newest_first(backend, text, tmp_path):
    backend.checkpoint(STACK).write_text(text)
    backend.checkpoint(STACK).with_suffix(".json.bak").write_text(text)
    history = tmp_path / ".pulumi" / "history" / "skyinfra" / STACK
    history.mkdir(parents=True)
    for at, nodes in ((1, [{"slot": 1}]), (2, [{"slot": 2}])):
        (history / f"{STACK}-{at}.checkpoint.json").write_text(checkpoint(nodes))
    (history / f"{STACK}-3.checkpoint.json").write_text("{")
    assert backend.restore_previous(STACK).endswith("-2.checkpoint.json")
    assert backend.load(STACK).nodes == [{"slot": 2}]


@pytest.mark.parametrize("text", TORN)
def test_a_torn_checkpoint_without_any_other_means_no_stack_and_is_kept(backend, text):
    backend.checkpoint(STACK).write_text(text)
    assert backend.restore_previous(STACK) is None
    assert backend.load(STACK) is None
    assert backend.checkpoint(STACK).with_suffix(".json.corrupt").read_text() == text


def test_forgetting_a_stack_takes_its_files_and_no_other_stacks(backend):
    for name in (STACK, f"{STACK}-2"):
        backend.checkpoint(name).write_text(checkpoint([]))
        backend.checkpoint(name).with_suffix(".json.bak").write_text("")
    backend.forget(STACK)
    assert backend.stacks() == [f"{STACK}-2"]
    assert not backend.exists(STACK)


def write_lock(backend, tmp_path, **lock):
    folder = tmp_path / ".pulumi" / "locks" / "organization" / "skyinfra" / STACK
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "1.json").write_text(json.dumps(lock))


def test_the_lock_of_a_dead_process_is_removed_and_said(backend, tmp_path, home):
    ended = subprocess.Popen(["true"])
    ended.wait()
    write_lock(backend, tmp_path, pid=ended.pid, hostname=os.uname().nodename, username="me")
    told = []
    seize.seize(home, backend, STACK, told.append)
    assert backend.locks(STACK) == []
    assert [event.op for event in told] == ["cancel"]


def test_a_number_that_another_program_has_by_now_holds_nothing(backend, tmp_path, home):
    write_lock(backend, tmp_path, pid=os.getppid(), hostname=os.uname().nodename)
    seize.seize(home, backend, STACK, lambda _: None)
    assert backend.locks(STACK) == []


def test_the_lock_of_another_host_is_respected(backend, tmp_path, home):
    write_lock(backend, tmp_path, pid=1, hostname="elsewhere", username="you")
    with pytest.raises(seize.StackHeld, match="you@elsewhere"):
        seize.seize(home, backend, STACK, lambda _: None)
    assert len(backend.locks(STACK)) == 1


def test_an_operation_folder_gives_back_what_was_written(home, spec):
    folder = OperationFolder(home, "op1")
    request = OperationRequest("op1", "up", STACK, spec, fence=2, consent=("*",))
    folder.write_request(request)
    assert folder.request() == request
    assert (folder.worker(), folder.result(), list(folder.events())) == (None, None, [])
    folder.write_worker(processes.me())
    assert processes.alive(folder.worker())
    result = OperationResult("failed", 2, "capacity", "none", leftovers=("a",), nodes=({"slot": 0},))
    folder.write_result(result)
    assert folder.result() == result
    folder.write_request(dataclasses.replace(request, fence=3))
    assert (folder.worker(), folder.result()) == (None, None)


def test_a_torn_last_event_is_not_there_yet(home):
    folder = OperationFolder(home, "op1")
    folder.path.mkdir(parents=True)
    log = EventLog(folder.path / "events.jsonl", None)
    for seq in (1, 2):
        log.append(OperationEvent(seq, 0.0, "began"))
    log.close()
    with (folder.path / "events.jsonl").open("a") as file:
        file.write('{"seq": 3, "at"')
    assert [event.seq for event in folder.events(after=1)] == [2]


@pytest.mark.parametrize("identifier", ["../x", ".hidden", "a/b"])
def test_an_operation_id_is_a_plain_name(home, identifier):
    with pytest.raises(ValueError, match="not an operation id"):
        OperationFolder(home, identifier)


def test_a_file_is_replaced_whole_and_private(tmp_path):
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert read_json(path) == {"a": 1}
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.json"]


def test_the_project_file_holds_the_spec_and_the_salt(tmp_path, spec):
    import yaml

    def written(provider):
        write_project(tmp_path / "p", STACK, spec, provider)
        return yaml.safe_load((tmp_path / "p" / f"Pulumi.{STACK}.yaml").read_text())

    mine = written({"type": "passphrase", "state": {"salt": "v1:abc"}})
    assert mine["encryptionsalt"] == "v1:abc"
    assert json.loads(mine["config"]["skyinfra:cluster"])["name"] == "c"
    theirs = written({"type": "cloud", "state": {"url": "awskms://k", "encryptedkey": "abc="}})
    assert {name: theirs[name] for name in theirs if name != "config"} == {
        "secretsprovider": "awskms://k",
        "encryptedkey": "abc=",
    }


def test_preparing_a_home_keeps_its_passphrase_and_makes_all_private(home):
    prepare_home(home)
    first = home.passphrase.read_text()
    prepare_home(home)
    assert home.passphrase.read_text() == first
    assert len(first) > 30
    assert home.passphrase.stat().st_mode & 0o777 == 0o600
    plugin = next((home.pulumi_home / "plugins").rglob("pulumi-resource-skyinfra"))
    said = subprocess.run(
        [plugin], env={"SKYINFRA_PROVIDER_PORT": "4711"}, stdin=subprocess.DEVNULL, capture_output=True, check=True
    )
    assert said.stdout == b"4711\n"


def test_the_engine_gets_our_settings_and_none_of_the_users_pulumi(home):
    env = engine_env(home, {"PATH": "/bin", "PULUMI_CONFIG_PASSPHRASE": "x", "PULUMI_STACK": "y"})
    assert "PULUMI_CONFIG_PASSPHRASE" not in env
    assert "PULUMI_STACK" not in env
    assert env["PULUMI_BACKEND_URL"] == f"file://{home.backend}"
    assert env["SKYINFRA_HOME"] == str(home.root)


def test_a_backend_whose_states_we_cannot_read_is_refused_without_its_password(home):
    settings = load_settings(home, {"SKYINFRA_BACKEND_URL": "file:///elsewhere"})
    assert str(settings.folder) == "/elsewhere"
    with pytest.raises(BadSetting, match="gs://user:…@bucket"):
        open_backend(load_settings(home, {"SKYINFRA_BACKEND_URL": "gs://user:hidden@bucket"}))


def test_the_file_says_where_stacks_are_and_the_environment_overrides_it(home):
    home.root.mkdir(parents=True, exist_ok=True)
    (home.root / "stacks.yaml").write_text("backend_url: s3://b\nsecrets_provider: awskms://k\n")
    settings = load_settings(home, {})
    assert (settings.backend_url, settings.secrets_provider, settings.folder) == ("s3://b", "awskms://k", None)
    given = {"AWS_SECRET_ACCESS_KEY": "x", "PGPASSWORD": "y", "HOME": "/h"}
    assert settings.credentials(given) == {"AWS_SECRET_ACCESS_KEY": "x"}
    assert load_settings(home, {"SKYINFRA_BACKEND_URL": "postgres://h/d"}).backend_url == "postgres://h/d"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("backend: x", "backend is no setting"),
        ("- a", "keys and values"),
        ("backend_url: 3", "text, not 3"),
        ("a: [", "not YAML"),
    ],
)
def test_a_bad_settings_file_is_one_line_that_names_it(home, text, said):
    home.root.mkdir(parents=True, exist_ok=True)
    (home.root / "stacks.yaml").write_text(text)
    with pytest.raises(BadSetting, match=said) as caught:
        load_settings(home, {})
    assert "stacks.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_worker_starts_without_any_credential(home):
    env = worker_env(home, {"PATH": "/bin", "AWS_SECRET_ACCESS_KEY": "x", "SKYINFRA_PULUMI": "/p", "HOME": "/h"})
    assert "AWS_SECRET_ACCESS_KEY" not in env
    assert (env["SKYINFRA_PULUMI"], env["SKYINFRA_HOME"], env["HOME"]) == ("/p", str(home.root), "/h")


def fake_engine(path, version):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho v{version}\n")
    path.chmod(0o755)
    return path


def test_the_engine_is_the_named_one_then_the_cached_then_a_fitting_one_on_the_path(tmp_path):
    on_path = fake_engine(tmp_path / "bin" / "pulumi", "3.300.1")
    env = {"HOME": str(tmp_path), "PATH": f"{on_path.parent}:/usr/bin:/bin"}
    assert engine.find_engine(env) == on_path
    cached = fake_engine(tmp_path / ".cache" / "skyinfra" / "engine" / "3.259.0" / "bin" / "pulumi", "3.259.0")
    assert engine.find_engine(env) == cached
    named = fake_engine(tmp_path / "mine", "1.0.0")
    assert engine.find_engine({**env, "SKYINFRA_PULUMI": str(named)}) == named
    with pytest.raises(engine.EngineUnavailable, match="not an executable"):
        engine.find_engine({**env, "SKYINFRA_PULUMI": str(tmp_path / "none")})


@pytest.mark.parametrize("version", ["3.258.9", "4.0.0", "dev"])
def test_an_engine_on_the_path_that_does_not_fit_is_passed_over(tmp_path, version):
    fake_engine(tmp_path / "bin" / "pulumi", version)
    assert engine.find_engine({"HOME": str(tmp_path), "PATH": f"{tmp_path}/bin:/usr/bin:/bin"}) is None


def test_when_nothing_can_install_it_one_line_says_what_was_tried(tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "_INSTALLER", "import sys; sys.exit('no network')")
    with pytest.raises(engine.EngineUnavailable) as caught:
        engine.ensure_engine(lambda _: None, {"HOME": str(tmp_path), "PATH": str(tmp_path)})
    assert "no network" in str(caught.value)
    assert "Go" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_engine_is_built_with_go_when_the_installer_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "_INSTALLER", "import sys; sys.exit('no network')")
    go = tmp_path / "bin" / "go"
    go.parent.mkdir()
    go.write_text(
        '#!/bin/sh\ntest -f go.mod || exit 3\nwhile [ "$1" != -o ]; do shift; done\n'
        'printf "#!/bin/sh\\necho v3.259.0\\n" > "$2"; chmod +x "$2"\n'
    )
    go.chmod(0o755)
    said = []
    env = {"HOME": str(tmp_path), "PATH": f"{go.parent}:/usr/bin:/bin"}
    found = engine.ensure_engine(said.append, env)
    assert found == engine.find_engine(env)
    assert len(said) == 2
    assert [entry.name for entry in found.parent.parent.parent.iterdir() if entry.is_dir()] == ["3.259.0"]


def test_a_pid_that_was_handed_out_again_is_another_process():
    me = processes.me()
    assert processes.alive(me)
    assert not processes.alive(dataclasses.replace(me, start_ticks=me.start_ticks + 1))
    assert not processes.alive(dataclasses.replace(me, boot_id="another boot"))
    assert processes.Identity.from_json({"pid": 1}) is None


def test_ending_finds_what_ignores_a_polite_request_and_zombies_do_not_count():
    script = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"
    child = subprocess.Popen(
        [sys.executable, "-S", "-c", script], env={"SKYINFRA_TEST_MARK": str(os.getpid())}, stdout=subprocess.PIPE
    )
    child.stdout.readline()
    mark = f"SKYINFRA_TEST_MARK={os.getpid()}"
    assert [process.pid for process in processes.marked(mark)] == [child.pid]
    assert processes.end(lambda: processes.marked(mark), grace_s=0.05) == []
    assert child.wait() == -signal.SIGKILL
