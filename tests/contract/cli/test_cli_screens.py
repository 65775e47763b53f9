"""Whole screens of the commands that read: standard output, standard error, exit code."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

Sky = Callable[..., Any]


def test_status_shows_a_table_on_standard_output_and_nothing_else(server: Any, sky: Sky, make: Any) -> None:
    server.clusters = [make.cluster("alpha"), make.cluster("b", "STOPPED", autostop=5, to_down=True)]
    screen = sky("status")
    assert screen.stdout == (
        "NAME   WORKSPACE  INFRA  RESOURCES   STATUS   AUTOSTOP   LAUNCHED\n"
        "alpha  default    Local  1x(cpus=2)  UP       -          2 mins ago\n"
        "b      default    Local  1x(cpus=2)  STOPPED  5m (down)  2 mins ago\n"
    )
    assert (screen.stderr, screen.code) == ("", 0)


def test_status_without_clusters_says_so_and_exits_0(server: Any, sky: Sky) -> None:
    screen = sky("status")
    assert (screen.stdout, screen.stderr, screen.code) == ("", "No existing clusters.\n", 0)


def test_status_of_an_unknown_name_is_only_text(server: Any, sky: Sky) -> None:
    screen = sky("status", "nope")
    assert (screen.stdout, screen.stderr, screen.code) == ("", "Cluster(s) not found: nope.\n", 0)


def test_status_as_json_is_a_list_of_plain_records(server: Any, sky: Sky, make: Any) -> None:
    server.clusters = [make.cluster("alpha")]
    (record,) = json.loads(sky("status", "-o", "json").stdout)
    assert (record["name"], record["status"], record["handle"]["head_ip"]) == ("alpha", "UP", "127.0.3.1")


def test_status_ip_prints_the_address_alone_and_fails_for_an_unknown_cluster(server: Any, sky: Sky, make: Any) -> None:
    server.clusters = [make.cluster("alpha")]
    assert sky("status", "--ip", "alpha").stdout == "127.0.3.1\n"
    screen = sky("status", "--ip", "nope")
    assert (screen.stdout, screen.stderr, screen.code) == ("", "error: cluster nope does not exist\n", 1)


def test_status_in_an_unknown_format_is_a_usage_error(server: Any, sky: Sky) -> None:
    screen = sky("status", "-o", "xml")
    assert (screen.stderr, screen.code) == ("error: --output must be table or json, not 'xml'\n", 2)
    assert server.seen == []


def test_queue_shows_jobs_and_says_which_cluster_is_unknown(server: Any, sky: Sky, make: Any) -> None:
    server.jobs = {"c": [make.job(1), make.job(2, "FAILED", exit_codes=[3])]}
    screen = sky("queue", "c", "nope")
    assert screen.stdout == (
        "Job queue of cluster c\n"
        "ID  NAME  USER  SUBMITTED  STARTED      DURATION  RESOURCES     STATUS     LOG             GIT COMMIT\n"
        "1   t     ann   1 min ago  50 secs ago  5s        1x[CPU:0.5]   SUCCEEDED  ~/sky_logs/1-t  -\n"
        "2   t     ann   1 min ago  50 secs ago  5s        1x[CPU:0.5]   FAILED     ~/sky_logs/2-t  -\n"
    ).replace("1x[CPU:0.5]   ", "1x[CPU:0.5]  ").replace("RESOURCES     ", "RESOURCES    ")
    assert (screen.stderr, screen.code) == ("Cluster(s) not found: nope.\n", 0)


def test_queue_as_json_has_states_by_name_and_the_jobs_own_exit_codes(server: Any, sky: Sky, make: Any) -> None:
    server.jobs = {"c": [make.job(1, "FAILED", exit_codes=[3])]}
    (record,) = json.loads(sky("queue", "c", "-o", "json").stdout)
    assert (record["status"], record["exit_codes"], record["cluster_name"]) == ("FAILED", [3], "c")


def test_queue_without_names_shows_the_clusters_that_are_up(server: Any, sky: Sky, make: Any) -> None:
    server.clusters = [make.cluster("c"), make.cluster("off", "STOPPED")]
    server.jobs = {"c": [], "off": []}
    assert sky("queue").stdout == "Job queue of cluster c\nNo jobs.\n"


def test_api_status_shows_requests_and_with_v_their_operations(server: Any, sky: Sky) -> None:
    assert sky("api", "status").stderr == "No active requests.\n"
    sky("down", "-y", "--async", "x")  # no cluster, no request
    server.clusters = [{"name": "x", "status": "UP"}]
    sky("down", "-y", "--async", "x")
    screen = sky("api", "status", "-v", "-a")
    header, *rows = screen.stdout.splitlines()
    assert header.split() == ["ID", "User", "Name", "Cluster", "Created", "Status", "Operations"]
    assert any(row.endswith("sky.down    x        just now  SUCCEEDED  up v3 +2 ~0 -0 succeeded") for row in rows)
    assert {row["status"] for row in json.loads(sky("api", "status", "-a", "-o", "json").stdout)} == {"SUCCEEDED"}


def test_api_info_names_the_server_and_both_versions(server: Any, sky: Sky) -> None:
    screen = sky("api", "info")
    assert screen.stdout.startswith("API server:  http://127.0.0.1:")
    assert "version:   0.0.9 (API 1), commit abc" in screen.stdout
    assert json.loads(sky("api", "info", "-o", "json").stdout)["api_version"] == "1"


def test_api_cancel_of_an_unknown_request_exits_0(server: Any, sky: Sky) -> None:
    screen = sky("api", "cancel", "zz")
    assert (screen.stdout, screen.stderr, screen.code) == ("", "No requests need to be cancelled.\n", 0)


def test_api_logs_shows_a_requests_lines_and_fails_for_an_unknown_one(server: Any, sky: Sky, make: Any) -> None:
    server.clusters = [make.cluster("x")]
    server.events = [{"at": 0, "kind": "log", "text": "removing x"}]
    sky("down", "-y", "--async", "x")
    request_id = next(r.id for r in server.requests.values() if r.verb == "down")
    screen = sky("api", "logs", request_id[:8])
    assert (screen.stdout, screen.code) == ("removing x\n", 0)
    screen = sky("api", "logs", "zz")
    assert (screen.stderr, screen.code) == ("error: no request match zz\n", 1)


def test_doctor_exits_1_when_something_belongs_to_nobody_but_not_for_the_command_itself(server: Any, sky: Sky) -> None:
    server.entries = [
        {"kind": "node", "id": "c-1", "owner": "cluster:c", "note": ""},
        {"kind": "process", "id": str(os.getpid()), "owner": None, "note": "skyinfra doctor"},
    ]
    screen = sky("doctor")
    assert screen.stdout == "KIND  ID   OWNER      NOTE\nnode  c-1  cluster:c  -\n"
    assert (screen.stderr, screen.code) == ("Everything here belongs to somebody.\n", 0)
    server.entries.append({"kind": "process", "id": "1", "owner": None, "note": "stray"})
    screen = sky("doctor", "-o", "json")
    assert [entry["id"] for entry in json.loads(screen.stdout)["entries"]] == ["c-1", "1"]
    assert screen.code == 1


def test_help_lists_every_command_and_imports_none_of_them(sky: Sky) -> None:
    screen = sky("--help")
    assert screen.code == 0
    assert screen.stdout == (
        "Usage: skyinfra [OPTIONS] COMMAND [ARGS]...\n\n"
        "  SkyPilot's API, Pulumi's guarantees: a cluster is a Pulumi stack.\n\n"
        "Options:\n"
        "  -v, --version  Show the version and exit.\n"
        "  -c, --commit   Show the commit this was built from and exit.\n"
        "  -h, --help     Show this message and exit.\n\n"
        "Commands:\n"
        "  launch       Make a cluster if need be, and run a task on it.\n"
        "  exec         Run a task or a command on a cluster that is up.\n"
        "  status       Show clusters.\n"
        "  queue        Show the jobs of clusters.\n"
        "  logs         Show or fetch the log of a job.\n"
        "  cancel       Cancel jobs.\n"
        "  stop         Stop clusters; their disks stay.\n"
        "  start        Start clusters that are stopped.\n"
        "  autostop     Stop or remove clusters when they have been idle for a while.\n"
        "  down         Remove clusters and everything they hold.\n"
        "  history      Show what a cluster's stack went through.\n"
        "  diff         Show what differs between two updates of a cluster, or now and planned.\n"
        "  rollback     Make a cluster what it was after an earlier update.\n"
        "  stack        A cluster's Pulumi stack: env.\n"
        "  eject        Write a cluster as an ordinary Pulumi project.\n"
        "  cost-report  Show what clusters cost, also those that are gone.\n"
        "  check        Show which clouds can be used, and why not the others.\n"
        "  ssh          Pools of machines reached over SSH: up, down, status.\n"
        "  workspace    The workspace that commands use: use, info.\n"
        "  gpus         Accelerators: how many, on which machines, at what price.\n"
        "  catalog      Prices: how old they are, and newer ones.\n"
        "  api          The API server and its requests: start, stop, status, logs, cancel, login, token…\n"
        "  engine       The Pulumi engine that skyinfra uses: where it is, install it.\n"
        "  reap         Find and remove what costs and belongs to no cluster.\n"
        "  doctor       Compare what exists on this machine with what the server knows.\n"
    )


def test_wrong_command_lines_exit_2_with_an_error_and_a_hint(home: Any, sky: Sky) -> None:
    cases = {
        ("statsu",): "error: no such command: statsu\nhint: did you mean `skyinfra status`?\n",
        ("--nope",): "error: no such option: --nope\nhint: try `skyinfra --help`\n",
        ("api", "info", "--nope"): "error: No such option: --nope\nhint: try `skyinfra api info --help`\n",
        ("logs",): "error: Missing argument 'CLUSTER'.\nhint: try `skyinfra logs --help`\n",
        ("api", "nope"): "error: no such command: api nope\nhint: try `skyinfra api --help`\n",
        ("api", "logs"): "error: give a request id, or --server-logs\n",
        ("down",): "error: name the clusters, or use --all\n",
        ("exec", "c"): "error: exec needs a task's YAML file or a command\n",
        ("logs", "c", "one"): "error: a job id is a number, not 'one'\n",
    }
    for argv, expected in cases.items():
        screen = sky(*argv)
        assert (screen.stderr, screen.stdout, screen.code) == (expected, "", 2), argv


def test_a_command_of_skypilots_that_is_not_here_yet_says_so(home: Any, sky: Sky) -> None:
    screen = sky("storage", "ls")
    assert (screen.code, screen.stderr.splitlines()[0]) == (1, "error: `skyinfra storage` is not in skyinfra yet")


def test_a_refused_token_is_one_line_with_a_hint(server: Any, sky: Sky, home: Any) -> None:
    (home / "token").write_text("another")
    screen = sky("status")
    assert screen.code == 1
    error, hint = screen.stderr.splitlines()
    assert error == "error: The API server at this machine refused the credentials."
    assert hint.startswith("hint: the token is read from ")
