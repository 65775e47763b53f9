"""Starting a local server: one between many clients, scrubbed, and one line when it fails."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from skyinfra.client import endpoint, server_process
from skyinfra.model.exceptions import ApiServerConnectionError
from skyinfra.model.home import Home

SERVER = """
import json, os, sys, time
home, ready = os.environ["SKYINFRA_HOME"], int(sys.argv[sys.argv.index("--ready-fd") + 1])
with open(home + "/starts", "a") as f:
    f.write(json.dumps({"env": dict(os.environ), "argv": sys.argv[1:], "sid": os.getsid(0)}) + "\\n")
stat = open("/proc/self/stat").read().rpartition(")")[2].split()
record = {"pid": os.getpid(), "start_ticks": int(stat[19]), "host": "127.0.0.1", "port": 7,
          "boot_id": open("/proc/sys/kernel/random/boot_id").read().strip()}
with open(home + "/server.json", "w") as f:
    json.dump(record, f)
os.write(ready, b"ready 7\\n")
time.sleep(60)
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    monkeypatch.setenv("SKYINFRA_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(server_process, "command", lambda *_: [sys.executable, "-c", SERVER])
    home = Home.from_env()
    yield home
    record = endpoint.read_server(home)
    if record is not None:
        server_process.end(record, 0.0)


def failing(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    monkeypatch.setattr(server_process, "command", lambda *_: [sys.executable, "-c", code])


def starts(home: Home) -> list[dict[str, object]]:
    return [json.loads(line) for line in (home.root / "starts").read_text().splitlines()]


def test_ten_clients_that_find_no_server_start_one_between_them(home: Home) -> None:
    pids: list[int] = []
    threads = [threading.Thread(target=lambda: pids.append(server_process.start(home)["pid"])) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(pids) == 10
    assert len(set(pids)) == len(starts(home)) == 1


def test_the_server_sees_its_state_folder_but_not_the_callers_variables(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hush")
    monkeypatch.setenv("AWS_PROFILE", "work")
    monkeypatch.setenv("https_proxy", "http://proxy")
    monkeypatch.setenv("SKYPILOT_API_SERVER_ENDPOINT", "http://elsewhere")
    server_process.start(home)
    (start,) = starts(home)
    env = start["env"]
    assert isinstance(env, dict)
    assert env["SKYINFRA_HOME"] == str(home.root)
    assert (env["AWS_PROFILE"], env["https_proxy"]) == ("work", "http://proxy")
    assert not {"HF_TOKEN", "SKYPILOT_API_SERVER_ENDPOINT"} & env.keys()
    assert start["sid"] != os.getsid(0)


def test_a_server_that_ends_is_reaped_and_no_longer_taken_for_a_living_one(home: Home) -> None:
    record = server_process.start(home)
    assert not server_process.end(record, 0.0)  # it does not stop by itself
    assert not endpoint.process_lives(record)
    assert server_process.start(home)["pid"] != record["pid"]


def test_a_server_that_says_why_it_cannot_start_is_quoted_with_the_end_of_its_log(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, "import os, sys; print('deep trouble'); os.write(int(sys.argv[-1]), b'error port taken\\n')")
    with pytest.raises(ApiServerConnectionError, match=r"^port taken$") as caught:
        server_process.start(home)
    assert "server.log, which ends with:\n  deep trouble" in caught.value.hint  # type: ignore[attr-defined]


def test_a_server_that_dies_at_once_is_an_error_with_its_exit_code(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, "import sys; sys.exit('no module')")
    with pytest.raises(ApiServerConnectionError, match="did not start") as caught:
        server_process.start(home)
    assert "no module" in caught.value.hint  # type: ignore[attr-defined]
