"""Configuration layers: what merges, what is replaced, what a client and a task may not say."""

import pytest

from skyinfra.model.config import TASK_OVERRIDES, Config, check_config, effective, from_client, merged
from skyinfra.model.exceptions import InvalidSkyPilotConfigError


def test_maps_merge_lists_are_replaced_and_layers_stay_as_they_are() -> None:
    low = {"aws": {"vpc_name": "a", "labels": {"x": "1"}}, "allowed_clouds": ["aws"]}
    high = {"aws": {"labels": {"y": "2"}}, "allowed_clouds": ["gcp"]}
    assert merged(low, None, high) == {
        "aws": {"vpc_name": "a", "labels": {"x": "1", "y": "2"}},
        "allowed_clouds": ["gcp"],
    }
    assert low["aws"] == {"vpc_name": "a", "labels": {"x": "1"}}


def test_inside_a_pod_config_lists_are_appended_and_names_merge() -> None:
    def pod(*containers: dict) -> dict:
        return {"kubernetes": {"pod_config": {"spec": {"containers": list(containers)}}}}

    low = pod({"name": "main", "env": [{"name": "A", "value": "1"}]})
    high = pod({"name": "main", "env": [{"name": "A", "value": "2"}, {"name": "B"}]}, {"name": "side"})
    assert merged(low, high) == pod(
        {"name": "main", "env": [{"name": "A", "value": "2"}, {"name": "B"}]}, {"name": "side"}
    )


def test_nested_keys_are_read_written_and_taken_out() -> None:
    config = Config()
    config.set_nested(("aws", "labels", "x"), "1")
    assert config.get_nested(("aws", "labels", "x"), None) == "1"
    assert config.get_nested(("aws", "labels", "x", "deeper"), "default") == "default"
    assert config.pop_nested(("aws", "nope", "x"), "default") == "default"
    assert config.pop_nested(("aws", "labels", "x"), None) == "1"
    assert config == {}


def test_a_task_overrides_only_what_it_may() -> None:
    config = Config.from_dict({"docker": {"run_options": ["-a"]}})
    keys = ("docker", "run_options")
    override = {"docker": {"run_options": ["-b"]}}
    assert config.get_nested(keys, None, override, TASK_OVERRIDES) == ["-b"]
    with pytest.raises(ValueError, match=r"jobs\.bucket cannot be overridden"):
        config.get_nested(keys, None, {"jobs": {"bucket": "x"}}, TASK_OVERRIDES)
    with pytest.raises(ValueError, match=r"docker\.run_options cannot be overridden"):
        config.get_nested(keys, None, override, None, [keys])


def test_what_only_the_server_may_say_is_dropped_from_a_client() -> None:
    config = {"api_server": {"endpoint": "x"}, "jobs": {"controller": {"consolidation_mode": True}, "bucket": "b"}}
    assert from_client(config) == {"jobs": {"bucket": "b"}}


@pytest.mark.parametrize("config", [None, {}, {"aws": None}, {"ssh": {"anything": 1}, "db": "sqlite://"}])
def test_configurations_that_are_accepted(config: dict | None) -> None:
    check_config(config)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"kuberntes": {}}, "did you mean 'kubernetes'"),
        ({"aws": 3}, "aws: expected a map"),
        ({"allowed_clouds": "aws"}, "expected a list"),
        ([], "expected a map"),
        ({"aws": {"use_internal_ip": True}}, "unknown key 'use_internal_ip' in aws; did you mean 'use_internal_ips'"),
        ({"jobs": {"controller": {"resource": {}}}}, r"jobs\.controller.*did you mean 'resources'"),
    ],
)
def test_configurations_that_are_refused(config: object, says: str) -> None:
    with pytest.raises(InvalidSkyPilotConfigError, match=says):
        check_config(config)


def test_a_request_runs_under_server_user_project_task_and_command_line() -> None:
    """Each key is set by one layer more than the one before, so that each shows who wins over whom."""
    names = ("a", "b", "c", "d", "e")
    labels = [dict.fromkeys(names[i:], layer) for i, layer in enumerate(("server", "user", "project", "task", "cli"))]
    server, user, project, task, command_line = ({"kubernetes": {"custom_metadata": {"labels": one}}} for one in labels)
    layers = {"user": user, "project": project, "command_line": command_line}
    found = effective(server, layers, task).get_nested(("kubernetes", "custom_metadata", "labels"), None)
    assert found == {"a": "server", "b": "user", "c": "project", "d": "task", "e": "cli"}


def test_the_same_file_as_server_and_as_user_counts_once() -> None:
    server = {"kubernetes": {"pod_config": {"spec": {"tolerations": [{"key": "x"}]}}}, "allowed_clouds": ["local"]}
    assert effective(server, {"user": server}) == server


def test_what_a_client_sends_is_checked_and_a_task_may_not_set_everything() -> None:
    with pytest.raises(InvalidSkyPilotConfigError, match="did you mean 'aws'"):
        effective({}, {"project": {"aw": {}}})
    with pytest.raises(ValueError, match=r"jobs\.bucket cannot be overridden by a task"):
        effective({}, {}, {"jobs": {"bucket": "b"}})
