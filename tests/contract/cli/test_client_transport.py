"""The client against a server that drops replies, breaks streams, goes away or is of another time."""

from __future__ import annotations

import io
import json
import threading
from pathlib import Path
from typing import Any

import pytest

import skyinfra as sky
from skyinfra.client import endpoint, stream, transport
from skyinfra.client.logs import Follower
from skyinfra.model import exceptions

TEN_EVENTS = [{"at": n, "kind": "log", "text": f"line {n}"} for n in range(10)]


def test_get_of_a_read_verb_costs_no_second_call(server: Any, make: Any) -> None:
    server.clusters = [make.cluster("c")]
    (record,) = sky.get(sky.status())
    assert (record["name"], record.status, record.handle.head_ip) == ("c", sky.ClusterStatus.UP, "127.0.3.1")
    assert [(method, path) for method, path, _ in server.seen] == [("POST", "/v1/requests/status")]


def test_a_request_id_handed_on_as_plain_text_gives_the_same_value(server: Any, make: Any) -> None:
    server.jobs = {"c": [make.job(4, "RUNNING")]}
    first = sky.queue("c")
    assert sky.get(str.__str__(first)) == sky.get(first)  # type: ignore[arg-type]
    assert sky.get(sky.job_status("c")) == {4: sky.JobStatus.RUNNING}


def test_get_asks_again_until_the_request_is_final(server: Any) -> None:
    server.pending_results = 3
    assert sky.get(sky.down("c")) is None
    assert sum(path.endswith("/result") for _, path, _ in server.seen) == 4


def test_a_dropped_reply_is_asked_for_again_under_the_same_key_and_makes_one_request(server: Any) -> None:
    server.drop_replies = 2
    request_id = sky.down("c")
    assert list(server.requests) == [request_id]
    keys = {headers["Idempotency-Key"] for method, _, headers in server.seen if method == "POST"}
    assert (len(keys), server.verbs()) == (1, ["down"] * 3)


def test_a_post_without_a_key_is_never_repeated(server: Any) -> None:
    transport.call("GET", "/v1/version")  # the connection exists, so the server may have seen what follows
    server.drop_replies = 1
    with pytest.raises(exceptions.ApiServerConnectionError):
        transport.call("POST", transport.path("requests", "down"), {"cluster_name": "c"})
    assert server.verbs() == ["down"]


def test_a_busy_server_is_asked_again(server: Any) -> None:
    server.busy_replies = 2
    assert sky.get(sky.status()) == []


def test_a_server_error_comes_back_as_its_class_with_its_hint(server: Any, make: Any) -> None:
    server.error = {**make.no_cluster("nope"), "hint": "look again", "type": "ClusterDoesNotExist"}
    with pytest.raises(exceptions.ClusterDoesNotExist, match="nope") as caught:
        sky.get(sky.queue("nope"))
    assert caught.value.hint == "look again"  # type: ignore[attr-defined]


def test_a_server_of_an_older_api_is_refused_by_name(server: Any) -> None:
    server.api = "0"
    with pytest.raises(exceptions.APIVersionMismatchError, match="too old"):
        sky.get(sky.status())


def test_unknown_and_empty_ids_raise_as_skypilots_do(server: Any) -> None:
    for wrong in ("", "nope"):
        with pytest.raises(RuntimeError):
            sky.get(sky.RequestId(wrong))
    with pytest.raises(exceptions.ClientError):
        sky.stream_and_get(sky.RequestId("nope"))


def test_a_broken_stream_continues_at_the_next_line_and_repeats_none(server: Any) -> None:
    server.events = TEN_EVENTS
    request_id = sky.down("c")
    server.cut_streams = [0, 3, 100, 101, 7]
    told = [event.get("text") for event in stream.events(request_id)]
    assert told == [*(f"line {n}" for n in range(10)), None]


def test_stream_and_get_prints_the_log_and_gives_the_value(server: Any) -> None:
    server.events = TEN_EVENTS
    text = io.StringIO()
    assert sky.stream_and_get(sky.down("c"), output_stream=text, tail=2) is None
    assert text.getvalue() == "line 8\nline 9\n"


def test_a_jobs_bytes_arrive_whole_and_once_through_broken_connections(server: Any, make: Any) -> None:
    data = bytes(range(256)) * 5 + b"no newline at the end \xff"
    server.jobs, server.logs = {"c": [make.job(1)]}, {("c", 1): data}
    server.cut_streams = [0, 1, 500, 13]
    follower = Follower("c", None)
    assert b"".join(follower.chunks()) == data
    assert (follower.exit_code(), follower.offset) == (0, len(data))


def test_a_job_that_ends_while_its_node_is_out_of_reach_still_gives_its_last_bytes(server: Any, make: Any) -> None:
    """The log's connection ended properly before the job did: what was written since is asked for."""
    server.jobs, server.logs = {"c": [make.job(1, "RUNNING")]}, {("c", 1): b"before "}
    chunks = Follower("c", 1).chunks()
    assert next(chunks) == b"before "
    server.logs[("c", 1)] = b"before after"
    server.jobs["c"] = [make.job(1, "FAILED")]
    assert b"".join(chunks) == b"after"


def test_a_finished_job_on_a_lost_node_ends_with_its_outcome_and_says_that_bytes_may_be_missing(
    server: Any, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skyinfra.client.logs.FINAL_LOST_S", 0.1)
    server.jobs, server.logs = {"c": [make.job(1, "FAILED_DRIVER")]}, {("c", 1): b"some bytes"}
    server.cut_streams = [4] + [0] * 50
    follower = Follower("c", 1)
    assert b"".join(follower.chunks()) == b"some"
    assert (follower.exit_code(), follower.truncated) == (100, True)


def test_tail_logs_returns_the_code_or_iterates_over_lines(server: Any, make: Any, capfdbinary: Any) -> None:
    server.jobs, server.logs = {"c": [make.job(1, "FAILED")]}, {("c", 1): b"\xff one\r two\nrest"}
    assert sky.tail_logs("c", None, True) == 100
    assert capfdbinary.readouterr().out == b"\xff one\r two\nrest"
    lines = sky.tail_logs("c", 1, True, preload_content=False)
    assert list(lines) == ["\ufffd one\r two\n", "rest"]  # type: ignore[arg-type]
    assert sky.tail_logs("c", 9, True) == 102


def test_a_pid_of_another_process_is_no_server(server: Any, home: Path) -> None:
    record = json.loads((home / "server.json").read_text())
    assert endpoint.process_lives(record)
    assert not endpoint.process_lives({**record, "start_ticks": record["start_ticks"] - 1})
    assert not endpoint.process_lives({**record, "boot_id": "another"})
    assert not endpoint.process_lives({**record, "pid": 2**22 + 1})


def test_a_stopped_server_is_not_started_again_by_someone_who_waits(
    server: Any, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request_id = sky.down("c")
    monkeypatch.setattr(transport, "STOPPED_S", 0.2)
    (home / "server.json").unlink()
    monkeypatch.setattr("skyinfra.client.server_process.start", lambda *_: pytest.fail("a server was started"))
    transport._drop()
    with pytest.raises(exceptions.ApiServerConnectionError, match="not running"):
        sky.get(request_id)


def test_a_command_that_comes_to_a_stopped_server_starts_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Started(Exception):
        pass

    def start(*_: object) -> None:
        raise Started

    monkeypatch.setattr("skyinfra.client.server_process.start", start)
    for first_call in (lambda: sky.get(sky.RequestId("x")), lambda: sky.tail_logs("c", None, True), sky.status):
        with pytest.raises(Started):
            first_call()


def test_a_waiting_client_finds_the_server_at_its_new_address(server: Any, move_server: Any) -> None:
    request_id = sky.down("c")
    move_server()
    assert sky.get(request_id) is None


def test_the_local_token_goes_to_no_other_machine(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert endpoint.locate().token == "a-token"
    monkeypatch.setenv("SKYINFRA_API_SERVER_ENDPOINT", "https://sky.example.com/team")
    target = endpoint.locate()
    assert (target.url, target.token) == ("https://sky.example.com:443/team", "")
    monkeypatch.setenv("SKYINFRA_API_SERVER_TOKEN", "theirs")
    assert endpoint.locate().token == "theirs"


def test_an_endpoint_that_cannot_be_reached_is_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKYPILOT_API_SERVER_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(exceptions.ApiServerConnectionError, match=r"http://127\.0\.0\.1:9"):
        sky.status()
    monkeypatch.setenv("SKYINFRA_API_SERVER_ENDPOINT", "nonsense")
    with pytest.raises(ValueError, match="nonsense"):
        sky.status()


def test_a_hundred_threads_share_one_process(server: Any, make: Any) -> None:
    server.clusters = [make.cluster(f"c{n}") for n in range(3)]
    counts: list[int] = []
    threads = [threading.Thread(target=lambda: counts.append(len(sky.get(sky.status())))) for _ in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert counts == [3] * 100
