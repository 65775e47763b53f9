"""What a task asks for."""

import pytest

from skyinfra.catalog.local import Wish
from skyinfra.model.autostop import AutostopConfig
from skyinfra.model.exceptions import NotSupportedError
from skyinfra.model.spec import ClusterSpec, Slot
from skyinfra.model.states import AutostopWaitFor
from skyinfra.server.fleet.autostop import changes_for, check_can_stop, policy_of_launch
from skyinfra.server.fleet.demand import read_demand


@pytest.mark.parametrize(
    ("resources", "wish"),
    [
        ({}, Wish()),
        ({"cpus": 4}, Wish(cpus=4)),
        ({"cpus": "4+", "memory": "16+"}, Wish(cpus=4, memory_gb=16)),
        ({"memory": "16GB"}, Wish(memory_gb=16)),
        ({"accelerators": "T4"}, Wish(accelerator=("T4", 1))),
        ({"accelerators": "T4:0.5"}, Wish(accelerator=("T4", 0.5))),
        ({"accelerators": {"T4": 2}}, Wish(accelerator=("T4", 2))),
        ({"infra": "local", "disk_size": 50, "use_spot": True}, Wish(disk_gb=50, spot=True, cloud="local")),
    ],
)
def test_resources_are_read(resources, wish):
    assert read_demand({"resources": resources}).wishes == (wish,)


def test_alternatives_keep_their_order():
    task = {"resources": {"cpus": 2, "ordered": [{"accelerators": "A100"}, {"accelerators": "T4", "cpus": 4}]}}
    assert read_demand(task).wishes == (Wish(2, accelerator=("A100", 1)), Wish(4, accelerator=("T4", 1)))


def test_a_demand_does_not_print_its_secrets():
    shown = repr(read_demand({"envs": {"A": "value-a"}, "secrets": {"B": "value-b"}}))
    assert "value" not in shown


def test_the_hash_changes_with_what_setup_depends_on_only():
    base = {"run": "a", "setup": "s", "envs": {"A": "1"}}
    assert read_demand(base).config_hash == read_demand({**base, "run": "b", "envs": {}}).config_hash
    assert read_demand(base).config_hash != read_demand({**base, "setup": "t"}).config_hash


@pytest.mark.parametrize("section", ["volumes", "service", "pool", "storage_mounts"])
def test_sections_that_come_later_are_refused_by_name(section):
    with pytest.raises(NotSupportedError, match=section):
        read_demand({section: {"x": 1}})


@pytest.mark.parametrize(
    ("body", "autostop", "meant"),
    [
        ({}, None, None),
        ({"down": True}, None, AutostopConfig(idle_minutes=1, down=True)),
        ({"down": True, "idle_minutes_to_autostop": 7}, None, AutostopConfig(idle_minutes=7, down=True)),
        ({"idle_minutes_to_autostop": 0}, None, AutostopConfig()),
        ({"idle_minutes_to_autostop": -1}, None, AutostopConfig(enabled=False)),
        ({}, {"idle_minutes": 3, "down": True}, AutostopConfig(idle_minutes=3, down=True)),
        ({}, "2h", AutostopConfig(idle_minutes=120)),
        ({}, False, AutostopConfig(enabled=False)),
        ({"idle_minutes_to_autostop": 4}, {"idle_minutes": 3, "hook": "x"}, AutostopConfig(idle_minutes=4, hook="x")),
        ({"down": True}, 10, AutostopConfig(idle_minutes=10, down=True)),
        ({"wait_for": "none"}, 10, AutostopConfig(idle_minutes=10, wait_for=AutostopWaitFor.NONE)),
    ],
)
def test_a_launchs_flags_go_over_its_tasks_autostop(body, autostop, meant):
    resources = {} if autostop is None else {"autostop": autostop}
    assert policy_of_launch(body, read_demand({"resources": resources})) == meant


def test_an_unknown_wait_for_is_refused_by_name():
    with pytest.raises(ValueError, match="jobs_and_ssh, jobs, none"):
        policy_of_launch({"wait_for": "ever"}, read_demand({}))


def _spec(**slot):
    return ClusterSpec("s", "default", "u", "c", "c-1", "local", (Slot(0, **slot),))


def test_each_setting_has_a_number_of_its_own_and_0_minutes_are_1():
    first, text = changes_for(_spec(), AutostopConfig(), None)
    assert (first["autostop"], first["to_down"], text) == (1, False, "autostop after 1 idle min")
    second, text = changes_for(ClusterSpec.from_json(first["spec"]), AutostopConfig(enabled=False), None)
    assert (second["autostop"], second["to_down"], text) == (-1, False, "autostop called off")
    assert [v["spec"]["autostop"]["setting"] for v in (first, second)] == [1, 2]


def test_hooks_alone_leave_the_idle_clock_as_it_is():
    set_before, _ = changes_for(_spec(), AutostopConfig(idle_minutes=5), None)
    hooks = read_demand({"config": {"hooks": [{"run": "sync", "events": ["stop"]}]}}).hooks
    after, _ = changes_for(ClusterSpec.from_json(set_before["spec"]), None, hooks)
    assert after["spec"]["hooks"] == ({"run": "sync", "events": ["stop"], "timeout": 3600},)
    assert after["spec"]["autostop"] == set_before["spec"]["autostop"]
    assert "autostop" not in after


def test_a_spot_cluster_may_go_down_but_not_stop():
    check_can_stop("c", AutostopConfig(idle_minutes=5, down=True), "is a spot cluster")
    check_can_stop("c", AutostopConfig(enabled=False), "is a spot cluster")
    check_can_stop("c", AutostopConfig(idle_minutes=5), None)
    with pytest.raises(NotSupportedError, match="spot"):
        check_can_stop("c", AutostopConfig(idle_minutes=5), "is a spot cluster")


def test_another_autostop_is_no_reason_to_set_up_again():
    with_it, without = ({"setup": "s", "resources": r} for r in ({"cpus": 2, "autostop": 5}, {"cpus": 2}))
    assert read_demand(with_it).config_hash == read_demand(without).config_hash
