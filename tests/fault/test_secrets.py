"""A canary secret is nowhere in clear but where it must be; and another local user can open nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from skyinfra.testing.world import World, wait_until

pytestmark = [pytest.mark.engine, pytest.mark.timeout(120)]

CANARIES = {"env": "canary-env-5d1c7e", "secret": "canary-secret-9b02aa", "password": "canary-registry-77f3e1"}


def test_canary_secrets_are_in_no_file_database_log_or_process_list(world: World) -> None:
    task = world.task(
        "t",
        'test -n "$MY_ENV" && test -n "$MY_SECRET" && touch "$READY" && while test -e "$READY"; do sleep 0.05; done',
        envs={"MY_ENV": CANARIES["env"], "READY": str(world.witness / "ready")},
        secrets={
            "MY_SECRET": CANARIES["secret"],
            "SKYPILOT_DOCKER_USERNAME": "u",
            "SKYPILOT_DOCKER_PASSWORD": CANARIES["password"],
            "SKYPILOT_DOCKER_SERVER": "registry.example",
        },
    )
    env = {**world.env, "FROM_CALLER": "canary-caller-31aa08"}
    client = world.popen("launch", "-y", "-c", "c", "--env", "FROM_CALLER", str(task), env=env)
    task.unlink() if wait_until((world.witness / "ready").exists, 60, "the job runs") else None
    values = [*CANARIES.values(), "canary-caller-31aa08"]

    assert list(_files_with(world.root, values)) == [], "while the job runs"
    for process in world.processes():
        assert not any(value in " ".join(process.argv) for value in values), process
        if "SKYPILOT_TASK_ID" not in process.env and process.pid != client.pid:
            assert not any(value in str(dict(process.env)) for value in values), process.argv

    (world.witness / "ready").unlink()
    client.communicate(timeout=60)
    assert client.returncode == 0
    assert list(_files_with(world.root, values)) == [], "after the job"
    assert list(_files_with(world.root, ["Traceback (most recent"])) == []


def _files_with(root: Path, needles: list[str]) -> Iterator[str]:
    for path in root.rglob("*"):
        if path.is_file() and not path.is_symlink():
            content = path.read_bytes()
            for needle in needles:
                if needle.encode() in content:
                    yield f"{path.relative_to(root)}: {needle}"


STRANGER = """
import json, os, socket, sys, urllib.error, urllib.request
urllib.request.urlopen(sys.argv[1] + "/v1/health").read()  # what is imported lazily may not be readable afterwards
os.setgroups([]); os.setgid(65534); os.setuid(65534)
base, sockets, folders, paths = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3]), json.loads(sys.argv[4])
report = {"status": {}, "opened": []}
for method, path in paths:
    request = urllib.request.Request(base + path, method=method, data=b"{}" if method in ("POST", "PUT") else None)
    try:
        report["status"][method + " " + path] = urllib.request.urlopen(request, timeout=10).status
    except urllib.error.HTTPError as error:
        report["status"][method + " " + path] = error.code
for path in sockets:
    try:
        socket.socket(socket.AF_UNIX).connect(path); report["opened"].append(path)
    except PermissionError:
        pass
for path in folders:
    try:
        os.listdir(path); report["opened"].append(path)
    except PermissionError:
        pass
print(json.dumps(report))
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_another_local_user_gets_401_and_can_open_no_socket_and_no_folder(world: World) -> None:
    os.chmod(world.root, 0o755)  # the state folder itself must keep strangers out, not the folder around it
    world.run("launch", "-y", "-c", "c", str(world.task("t", "echo hi")))
    where = json.loads(world.home.server_json.read_text())
    base = f"http://{where['host']}:{where['port']}"
    sockets = [str(world.home.node_socket(node.name, world.env)) for node in world.home.nodes.iterdir()]
    assert all(os.path.exists(path) for path in sockets)
    folders = [str(world.home.root), *(str(node) for node in world.home.nodes.iterdir()), str(world.home.operations)]
    paths = [["GET", "/v1/health"], *_paths_of(world, base)]
    done = subprocess.run(
        [sys.executable, "-c", STRANGER, base, json.dumps(sockets), json.dumps(folders), json.dumps(paths)],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    report = json.loads(done.stdout)
    assert report["opened"] == []
    assert report["status"].pop("GET /v1/health") == 200
    assert len(report["status"]) >= 10
    assert set(report["status"].values()) == {401}, report["status"]


def _paths_of(world: World, base: str) -> list[list[str]]:
    import urllib.request

    request = urllib.request.Request(
        f"{base}/v1/openapi.json", headers={"Authorization": f"Bearer {world.home.token.read_text().strip()}"}
    )
    document = json.loads(urllib.request.urlopen(request, timeout=10).read())
    found = []
    for path, methods in document["paths"].items():
        concrete = path.replace("{verb}", "status").replace("{name}", "c").replace("{digest}", "0" * 64)
        while "{" in concrete:
            concrete = concrete[: concrete.index("{")] + "1" + concrete[concrete.index("}") + 1 :]
        found += [[method.upper(), concrete] for method in methods if path != "/v1/health"]
    return [*found, ["GET", "/v1/openapi.json"], ["GET", "/nothing/here"], ["GET", "/"]]
