"""Values for policies and recovery strategies; prices behind `Resources.get_cost`."""

import subprocess
import sys

import pytest

import skyinfra as sky
from skyinfra.model.policy import RequestOptions, UserIdentity


class NoSpot(sky.AdminPolicy):
    @classmethod
    def validate_and_mutate(cls, user_request: sky.UserRequest) -> sky.MutatedUserRequest:
        task = user_request.task
        task.set_resources_override({"use_spot": False})
        return sky.MutatedUserRequest(task, user_request.skypilot_config)


def request() -> sky.UserRequest:
    task = sky.Task(name="t", run="true", resources=sky.Resources(use_spot=True))
    return sky.UserRequest(
        task,
        sky.Config({"aws": {"vpc_name": "a"}}),
        sky.AdminPolicyRequestName.CLUSTER_LAUNCH,
        RequestOptions(cluster_name="c", dryrun=True),
        user=UserIdentity("abc", "me"),
    )


def test_a_request_and_its_answer_survive_json() -> None:
    asked = request()
    back = sky.UserRequest.decode(asked.encode())
    assert back.task.to_yaml_config() == asked.task.to_yaml_config()
    assert (back.skypilot_config, back.request_name) == (asked.skypilot_config, asked.request_name)
    assert (back.request_options, back.user, back.at_client_side) == (asked.request_options, asked.user, False)
    answer = NoSpot().apply(back)
    mutated = sky.MutatedUserRequest.decode(answer.encode(), asked)
    assert [one.use_spot for one in mutated.task.resources] == [False]
    assert sky.MutatedUserRequest.decode("{}", asked) == sky.MutatedUserRequest(asked.task, asked.skypilot_config)


@pytest.mark.parametrize("body", ["[]", "{}", "not json", '{"task": {}, "skypilot_config": {}, "request_name": "x"}'])
def test_what_is_no_request_is_refused(body: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        sky.UserRequest.decode(body)


def test_a_policy_without_its_rule_cannot_be_made() -> None:
    with pytest.raises(TypeError):
        sky.AdminPolicy()  # type: ignore[abstract]


def test_recovery_strategies_are_known_by_name_in_any_case() -> None:
    registry = sky.JOBS_RECOVERY_STRATEGY_REGISTRY
    assert registry.from_str("FailOver").name == "failover"
    assert registry.from_str(None) is registry["eager_next_region"]
    with pytest.raises(ValueError, match="did you mean 'FAILOVER'"):
        registry.from_str("FAILOVR")


def test_whoever_has_resources_may_ask_what_they_cost_and_nothing_is_loaded_before() -> None:
    code = (
        "import sys, skyinfra as sky\n"
        "one = sky.Resources(infra='aws', instance_type='p4d.24xlarge')\n"
        "assert 'skyinfra.catalog.catalog' not in sys.modules\n"
        "print(one.get_cost(3600) > 10)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


def test_a_plan_made_elsewhere_can_be_printed(capsys: pytest.CaptureFixture[str]) -> None:
    task, best = sky.Task(name="t"), sky.Resources(infra="aws", instance_type="m6i.large")
    sky.Optimizer.print_optimized_plan(None, [task], {task: best}, 3600.0, 1.5, {task: {best: 1.5}}, True)
    assert capsys.readouterr().out.splitlines()[-1] == "Estimated cost: $1.50; estimated time: 1.0 h"
