"""What is done on a machine, by the text that is sent to it: leases, the agent, and that nothing stays."""

from __future__ import annotations

import base64
import json
import os
import stat
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from skyinfra.runtime import package
from skyinfra.stacks.clouds.failures import CloudError
from skyinfra.stacks.remote.program import ask

TTL_S = 3600.0


def lease_of(machine_id: str, server: str = "aaaa1111", **more: Any) -> dict[str, Any]:
    return {
        "machine_id": machine_id,
        "server": server,
        "cluster": machine_id.rsplit("-", 2)[0],
        "workspace": "default",
        "slot": 0,
        "incarnation": 0,
        "ttl_s": TTL_S,
        "root": f"~/.skyinfra-node/{machine_id}",
        **more,
    }


def take(shell: Any, leases: str, machine_id: str, **more: Any) -> dict[str, Any]:
    return ask(shell, "m", {"op": "take", "leases": leases, "lease": lease_of(machine_id, **more)})


def give_back(shell: Any, leases: str, machine_id: str) -> dict[str, Any]:
    request = {"op": "give_back", "leases": leases, "machine_id": machine_id, "root": f"~/.skyinfra-node/{machine_id}"}
    return ask(shell, "m", request)


def agent_request(leases: str, machine_id: str, **more: Any) -> dict[str, Any]:
    return {
        "op": "ensure_agent",
        "machine_id": machine_id,
        "leased": True,
        "leases": leases,
        "root": f"~/.skyinfra-node/{machine_id}",
        "home": None,
        "socket": f"~/.skyinfra-node/{machine_id}/s",
        "version": package.agent_version(),
        "boot": 0,
        "generation": 0,
        "token": "t0k3n-of-the-cluster",
        "program": None,
        "absolute_paths": False,
        "wait_s": 30,
        "keep_boot": False,
        **more,
    }


def program(tmp_path: Path) -> str:
    return base64.b64encode(package.build(tmp_path / "cache").read_bytes()).decode()


def test_a_look_tells_what_the_machine_is(shell, leases) -> None:
    seen = ask(shell, "m", {"op": "look", "leases": leases})
    assert seen["lease"] is None
    facts = seen["facts"]
    assert facts["cpus"] >= 1
    assert facts["memory_gb"] > 0
    assert facts["ip"] == "127.0.0.1"
    assert facts["python"].startswith("3.")
    assert not Path(leases).exists(), "looking leaves nothing"


def test_of_many_who_want_a_machine_at_once_one_gets_it(shell, leases) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: take(shell, leases, f"c{n}-0-0", server=f"server{n}"), range(8)))
    got = [answer["lease"]["machine_id"] for answer in answers if "lease" in answer]
    held = {answer["held"]["machine_id"] for answer in answers if "held" in answer}
    assert len(got) == 1
    assert held == set(got)
    assert give_back(shell, leases, got[0]) == {"gone": True}
    assert not Path(leases).exists(), "the last lease takes its folder along"


def test_taking_a_lease_again_gives_the_same_one(shell, leases) -> None:
    first = take(shell, leases, "c-0-0")["lease"]
    again = take(shell, leases, "c-0-0")["lease"]
    assert again["since"] == first["since"]
    assert again["expires_at"] >= first["expires_at"]


def test_giving_back_what_another_holds_leaves_it_alone(shell, leases) -> None:
    take(shell, leases, "theirs-0-0", server="other")
    assert give_back(shell, leases, "ours-0-0") == {"gone": True}
    assert take(shell, leases, "ours-0-0")["held"]["cluster"] == "theirs"


def test_an_expired_lease_is_taken_over_and_its_leavings_are_removed(shell, leases) -> None:
    take(shell, leases, "old-0-0", server="lost", ttl_s=-1)
    left = shell.home / ".skyinfra-node" / "old-0-0" / "home"
    left.mkdir(parents=True)
    (left / "secret").write_text("x")
    assert take(shell, leases, "new-0-0")["lease"]["machine_id"] == "new-0-0"
    assert not left.exists()


def test_an_expired_lease_whose_agent_runs_is_not_taken_over(shell, leases, tmp_path) -> None:
    take(shell, leases, "old-0-0", server="away", ttl_s=-1)
    assert ask(shell, "m", agent_request(leases, "old-0-0", program=program(tmp_path)))["ready"] == "started"
    assert take(shell, leases, "new-0-0")["held"]["machine_id"] == "old-0-0"


def test_a_look_of_its_server_renews_a_lease_and_one_of_another_does_not(shell, leases) -> None:
    take(shell, leases, "c-0-0", server="mine", ttl_s=1000.0)
    path = Path(leases) / "lease.json"
    soon = {**json.loads(path.read_text()), "expires_at": time.time() + 5}
    path.write_text(json.dumps(soon))
    other = ask(shell, "m", {"op": "look", "leases": leases, "server": "other"})
    assert other["lease"]["expires_at"] == soon["expires_at"]
    mine = ask(shell, "m", {"op": "look", "leases": leases, "server": "mine"})
    assert mine["lease"]["expires_at"] > soon["expires_at"] + 500


def test_an_agent_starts_is_changed_and_goes_without_a_trace(shell, leases, tmp_path) -> None:
    take(shell, leases, "c-0-0")
    request = agent_request(leases, "c-0-0")
    assert ask(shell, "m", request) == {"need": "program"}, "it is sent only where it is missing"
    assert ask(shell, "m", {**request, "program": program(tmp_path)})["ready"] == "started"
    assert ask(shell, "m", request)["ready"] == "ran already"
    seen = ask(shell, "m", {"op": "look", "leases": leases})
    assert (seen["lease"]["machine_id"], seen["agent"]) == ("c-0-0", "alive")
    assert ask(shell, "m", {**request, "generation": 1, "token": None})["ready"] == "started"
    root = shell.home / ".skyinfra-node" / "c-0-0"
    assert stat.S_IMODE((root / "agent" / "token").stat().st_mode) == 0o600
    assert "t0k3n" not in (root / "start.sh").read_text()
    assert os.path.islink(shell.home / "sky_workdir")
    (root / "home" / "locked").mkdir(mode=0o500, parents=True)
    assert give_back(shell, leases, "c-0-0") == {"gone": True}
    assert sorted(shell.home.iterdir()) == []
    assert not Path(leases).exists()
    assert give_back(shell, leases, "c-0-0") == {"gone": True}, "gone is done"


def test_what_was_there_before_stays(shell, leases, tmp_path) -> None:
    (shell.home / "sky_logs").mkdir()
    (shell.home / "sky_logs" / "mine").write_text("x")
    take(shell, leases, "c-0-0")
    ask(shell, "m", agent_request(leases, "c-0-0", program=program(tmp_path)))
    give_back(shell, leases, "c-0-0")
    assert (shell.home / "sky_logs" / "mine").read_text() == "x"


def test_no_agent_starts_on_a_machine_that_is_leased_to_another(shell, leases) -> None:
    take(shell, leases, "theirs-0-0", server="other")
    answer = ask(shell, "m", agent_request(leases, "ours-0-0"))
    assert answer["failed"] == "this machine is leased to theirs-0-0, not to ours-0-0"


def test_an_agent_that_cannot_start_says_why(shell, leases, tmp_path) -> None:
    take(shell, leases, "c-0-0")
    torn = base64.b64encode(b"not a program").decode()
    answer = ask(shell, "m", agent_request(leases, "c-0-0", program=torn, version="0+torn"))
    assert answer["failed"].startswith("it ended with code ")


def _with_python(folder: Path, text: str) -> str:
    """A PATH on which python3 is that script, and no other Python is."""
    folder.mkdir()
    for name in ("sh", "env"):
        (folder / name).symlink_to(f"/bin/{name}")
    if text:
        (folder / "python3").write_text(text)
        (folder / "python3").chmod(0o755)
    return str(folder)


def test_without_a_python_there_is_one_clear_error(shell, leases, tmp_path) -> None:
    bare = type(shell)(shell.home, _with_python(tmp_path / "bin", ""))
    with pytest.raises(CloudError, match=r"gpu1 needs Python 3\.8 or newer as python3; it has none") as caught:
        ask(bare, "gpu1", {"op": "look", "leases": leases})
    assert caught.value.kind == "user"


def test_an_old_python_is_named(shell, leases, tmp_path) -> None:
    old = '#!/bin/sh\n[ "$1" = --version ] && echo Python 3.6.8 && exit 0\nexit 97\n'
    bare = type(shell)(shell.home, _with_python(tmp_path / "bin", old))
    with pytest.raises(CloudError, match=r"needs Python 3\.8 or newer as python3; it has Python 3\.6\.8"):
        ask(bare, "gpu1", {"op": "look", "leases": leases})


def test_a_newer_python_under_another_name_will_do(shell, leases, tmp_path) -> None:
    path = _with_python(tmp_path / "bin", "#!/bin/sh\nexit 97\n")
    (Path(path) / "python3.12").symlink_to(sys.executable)
    assert ask(type(shell)(shell.home, path), "gpu1", {"op": "look", "leases": leases})["lease"] is None


def test_output_of_a_login_is_no_answer(shell, leases) -> None:
    class Chatty(type(shell)):
        def run(self, argv, stdin=b"", timeout_s=60.0):
            done = super().run(argv, stdin, timeout_s)
            return type(done)(done.code, b"Welcome!\nno newline" + done.stdout + b"bye\n", done.stderr)

    assert ask(Chatty(shell.home), "m", {"op": "look", "leases": leases})["lease"] is None
