"""Records a version for the tests of its successors: ``scripts/record-release [COMMIT]``.

The package comes out of git; the requests are what that version's client really sends to that version's server, command
by command; the golden specs and the resources they declared are taken from the stack that those commands made.
"""

from __future__ import annotations

import json
import lzma
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from previous_version import FIXTURES, Previous, environment, write_files

from skyinfra.stacks import engine
from skyinfra.testing.world import World

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "unit" / "stacks" / "golden"

FILES = {
    "hello.yaml": json.dumps(
        {
            "name": "hello",
            "resources": {"infra": "local", "cpus": 1, "memory": 1},
            "workdir": "work",
            "file_mounts": {"~/mounted.txt": "mounted.txt"},
            "envs": {"GREETING": "hi"},
            "secrets": {"PASSWORD": "swordfish"},
            "setup": "echo setup",
            "run": "cat data.txt ~/mounted.txt; echo $GREETING",
        }
    ),
    "bigger.yaml": json.dumps({"resources": {"infra": "local", "cpus": 2, "memory": 1}, "run": "echo bigger"}),
    "work/data.txt": "from the workdir\n",
    "mounted.txt": "from a file mount\n",
}
#: Every verb, once at least, as a line of the CLI or of Python; in the end nothing is left.
COMMANDS = [
    "check",
    "status",
    "gpus list",
    "python from skyinfra.client.sdk import list_accelerators as f; f()",
    "python from skyinfra.client.sdk import list_accelerator_counts as f; f()",
    "python dag = sky.Dag(); dag.add(sky.Task.from_yaml('hello.yaml')); sky.get(sky.optimize(dag))",
    "launch --dryrun -c c hello.yaml",
    "launch -y -c c hello.yaml",
    "status",
    "status -r -u -v c",
    "status --ip c",
    "status --endpoints c",
    "exec c hello.yaml",
    "exec c -- exit 3",
    "exec -d c -n long -- sleep 600",
    "queue c",
    "logs c 1",
    "logs c 4 --status",
    "logs c 1 --sync-down",
    "logs c --provision",
    "cancel -y c 4",
    "logs c 4",
    "autostop -y -i 600 c",
    "autostop -y --cancel c",
    "launch --dryrun -c c hello.yaml",
    "launch -y --fast -c c hello.yaml",
    "launch -y --resize -c c bigger.yaml",
    "rollback -y c --to 1",
    "stop -y c",
    "start -y c",
    "history c",
    "diff c 1 2",
    "stack env c",
    "eject c",
    "cost-report",
    "api status -a",
    "api info",
    "api token create ci --role viewer",
    "api token list",
    "doctor",
    "down -y c",
    "history c",
]
#: Runs a command of the package on PYTHONPATH and notes, one JSON line each, what its transport sends.
RECORDER = """
import http.client, json, sys
notes = sys.argv[1]
real = http.client.HTTPConnection.request
def request(self, method, url, body=None, headers={}, **more):
    sent = body if isinstance(body, bytes) else None
    line = {"method": method, "path": url, "headers": dict(headers), "body": json.loads(sent) if sent else None}
    with open(notes, "a") as file:
        file.write(json.dumps(line) + "\\n")
    return real(self, method, url, body, headers, **more)
http.client.HTTPConnection.request = request
if sys.argv[2] == "python":
    import skyinfra as sky
    exec(" ".join(sys.argv[3:]))
    sys.exit(0)
sys.argv = ["skyinfra", *sys.argv[2:]]
from skyinfra.cli.main import main
sys.exit(main())
"""
#: Different in every run, or a credential, and nothing that a server reads a meaning into.
DROPPED_HEADERS = ("authorization", "content-length", "host")


def main(argv: list[str]) -> int:
    commit = _git("rev-parse", "--short=7", argv[0] if argv else "HEAD").strip()
    package = subprocess.run(["git", "archive", commit, "skyinfra"], cwd=ROOT, check=True, capture_output=True).stdout
    with tempfile.TemporaryDirectory(prefix="skyrec-") as name:
        kept = Path(name) / "kept"
        kept.mkdir()
        (kept / "package.tar.xz").write_bytes(lzma.compress(package, preset=9 | lzma.PRESET_EXTREME))
        unpacked = Previous(kept).unpack(Path(name) / "package")
        about = _about(commit, unpacked)
        (kept / "about.json").write_text(json.dumps(about, indent=1) + "\n")
        _record(kept, Path(name), unpacked, about["label"])
        target = FIXTURES / about["label"]
        shutil.rmtree(target, ignore_errors=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(kept, target)
    print(f"recorded {about['label']} in {target.relative_to(ROOT)}")
    return 0


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, check=True, capture_output=True, text=True).stdout


def _about(commit: str, package: Path) -> dict[str, Any]:
    code = (
        "import json; from skyinfra.runtime import package, protocol; from skyinfra.wire import versions;"
        "print(json.dumps({'version': versions.PRODUCT_VERSION, 'agent_version': package.agent_version(),"
        "'api': versions.API_VERSION, 'agent_api': protocol.API_VERSION}))"
    )
    env = environment(os.environ, package)  # elsewhere than here: the current folder comes before PYTHONPATH
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, env=env, cwd=package)
    said = json.loads(done.stdout)
    return {"label": f"{said['version']}-{commit}", "commit": commit, **said}


def _record(kept: Path, scratch: Path, package: Path, label: str) -> None:
    found = engine.find_engine(os.environ)
    assert found is not None, "scripts/record-release installs the engine"
    world = World(scratch / "w", env={"SKYINFRA_PULUMI": str(found)})
    write_files(world.root, FILES)
    commands = []
    try:
        for line in COMMANDS:
            print(f"$ skyinfra {line}", flush=True)
            commands.append(_run(world, line.split(), environment(world.env, package)))
            if line.startswith("start"):  # the stack's history goes with it in `down`
                _keep_specs(world, label)
        (kept / "requests.json").write_text(json.dumps({"files": FILES, "commands": commands}, indent=1) + "\n")
    finally:
        world.close()


def _run(world: World, argv: list[str], env: dict[str, str]) -> dict[str, Any]:
    notes = world.root / "sent.jsonl"
    notes.unlink(missing_ok=True)
    words = [sys.executable, "-c", RECORDER, str(notes), *argv]
    done = subprocess.run(words, cwd=world.root, env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=120)
    if b"Traceback" in done.stderr:
        raise SystemExit(done.stderr.decode(errors="replace")[-2000:])
    sent = [json.loads(line) for line in notes.read_text().splitlines()] if notes.exists() else []
    for one in sent:
        one["headers"] = {k: v for k, v in one["headers"].items() if k.lower() not in DROPPED_HEADERS}
    return {"argv": argv, "code": done.returncode, "sent": sent}


def _keep_specs(world: World, label: str) -> None:
    """Each update of the stack becomes a golden file: its spec, and the resources that it left."""
    history = world.home.backend / ".pulumi" / "history"
    for number, path in enumerate(sorted(history.rglob("*.history.json"))):
        spec = json.loads(json.loads(path.read_text())["config"]["skyinfra:cluster"])
        checkpoint = path.with_name(path.name.replace(".history.json", ".checkpoint.json"))
        resources = json.loads(checkpoint.read_text())["checkpoint"]["latest"]["resources"]
        names = {r["id"]: r["urn"].rpartition("::")[2] for r in resources if r["type"] == "skyinfra:local:Machine"}
        made = [[r["type"], r["urn"].rpartition("::")[2], _inputs(r["inputs"], names)] for r in resources if "id" in r]
        golden = {"resources": sorted(r for r in made if r[0].startswith("skyinfra:")), "spec": spec}
        (GOLDEN / f"{label}-{number + 1}.json").write_text(json.dumps(golden, indent=2, sort_keys=True) + "\n")


def _inputs(inputs: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """With the id that mocks give a machine, which depends on nothing but its name."""
    machine = inputs.get("machine_id")
    return inputs if machine is None else {**inputs, "machine_id": f"id-of-{names[machine]}"}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
